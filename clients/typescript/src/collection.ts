import { guard, json } from './core.js'
import type { Entry, Rows } from './store.js'
import type { BrainError, Collection, CollectionState, Status } from './types.js'

export interface OwnCollection<Row> extends Collection<Row> {
  /** Something has changed. */
  _changed(hasRows?: unknown): void
  _error?: BrainError
}

export const keyOf = (key: any) => (key === undefined || Array.isArray(key) ? key : [key])

/** `attach` begins the subscription with the first listener. */
export const createCollection = <Row>(
  status: () => Status,
  attach: (collection: OwnCollection<Row>) => readonly [Rows, () => void],
): OwnCollection<Row> => {
  const listeners = new Set<() => void>()
  let store: Rows | undefined
  let detach: () => void
  let state: CollectionState<Row> | undefined
  let isQueued = false
  let rows: Map<string, Entry> | undefined
  let list: Row[] | undefined

  const current = () => {
    if (store?._ready) rows = store._rows
    return [...(rows?.values() ?? [])]
  }

  const collection: OwnCollection<Row> = {
    _changed(hasRows) {
      state = undefined
      if (hasRows) list = undefined
      if (!isQueued)
        queueMicrotask(() => {
          isQueued = false
          for (const listener of listeners) guard(listener)
        })
      isQueued = true
    },
    get: () =>
      (state ??= { rows: (list ??= current().map(entry => entry.row)), ready: !!rows, status: status(), error: collection._error }),
    subscribe(listener) {
      const own = () => listener()
      if (!listeners.size) {
        // What it has is shown until the rows are there again.
        current()
        ;[store, detach] = attach(collection)
      }
      listeners.add(own)
      return () => {
        if (listeners.delete(own) && !listeners.size) detach()
      }
    },
    byKey(key) {
      current()
      return rows?.get(json(keyOf(key)))?.row
    },
    entries: () => current().map(({ key, row }) => [key, row]),
  }
  return collection
}
