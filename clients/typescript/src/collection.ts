import { guard } from './core.js'
import type { Entry, Rows } from './store.js'
import { BrainError, type Collection, type CollectionState, type Status } from './types.js'

export interface OwnCollection<Row> extends Collection<Row> {
  /** Something has changed. */
  _changed(): void
  _error?: BrainError
}

/** `attach` begins the subscription with its first listener. */
export const createCollection = <Row>(
  status: () => Status,
  attach: (collection: OwnCollection<Row>) => readonly [Rows, () => void],
): OwnCollection<Row> => {
  const listeners = new Set<() => void>()
  let store: Rows | undefined
  let detach: () => void
  let state: CollectionState<Row> | undefined
  let isQueued = false
  let rows = new Map<string, Entry>()
  let shown: readonly Row[] = []

  const collection: OwnCollection<Row> = {
    _changed() {
      state = undefined
      if (isQueued) return
      isQueued = true
      queueMicrotask(() => {
        isQueued = false
        for (const listener of listeners) guard(listener)
      })
    },
    get() {
      if (!state) {
        if (store?._ready) rows = store._rows
        const now = [...rows.values()].map(entry => entry.row)
        // The same array as long as its rows are.
        if (now.length != shown.length || now.some((row, index) => row != shown[index])) shown = now
        state = { rows: shown, ready: rows.size > 0 || !!store?._ready, status: status(), error: collection._error }
      }
      return state
    },
    subscribe(listener) {
      const own = () => listener()
      if (!listeners.size) [store, detach] = attach(collection)
      listeners.add(own)
      return () => {
        if (listeners.delete(own) && !listeners.size) detach()
      }
    },
    byKey: key => {
      collection.get()
      return rows.get(JSON.stringify(Array.isArray(key) ? key : [key]))?.row
    },
    entries: () => {
      collection.get()
      return [...rows.values()].map(({ key, row }) => [key, row])
    },
  }
  return collection
}
