import type { Frame, Store } from './core.js'
import type { Json } from './types.js'

export interface Entry {
  key: Json[]
  row: any
}

export interface Rows extends Store {
  _rows: Map<string, Entry>
  _ready: boolean
}

/** The rows of a subscription with a snapshot. Each transaction is applied as a whole. */
export const createStore = (changed: () => void): Rows => {
  let building: Map<string, Entry> | undefined = new Map()
  const pending = new Map<string, Frame[]>()

  const put = (key: Json[], row: any) => {
    const name = JSON.stringify(key)
    const known = store._rows.get(name)
    ;(building ?? store._rows).set(
      name,
      known && JSON.stringify(known.row) == JSON.stringify(row) ? known : { key, row },
    )
  }

  const apply = ({ op, key, row, data }: Frame) => {
    if (op == 'truncate') (building ?? store._rows).clear()
    // Presence has messages about users in place of rows.
    else if (data?.userId && data.status != 'offline') put([data.userId], data)
    else if (row) put(key, row)
    else if (key || data?.userId) (building ?? store._rows).delete(JSON.stringify(key ?? [data.userId]))
  }

  const store: Rows = {
    _rows: new Map(),
    _ready: false,
    _take(frame) {
      const { op, txid, rows, last } = frame
      if (op == 'reset') {
        building = new Map()
        pending.clear()
      } else if (op == 'snapshot') {
        for (const { key, row } of rows) put(key, row)
      } else if (op == 'snapshot-end') {
        if (building) store._rows = building
        building = undefined
        store._ready = true
      } else if (txid) {
        const frames = pending.get(txid) ?? []
        if (op != 'commit') pending.set(txid, [...frames, frame])
        if (op != 'commit' && !last) return
        for (const one of pending.get(txid) ?? []) apply(one)
        pending.delete(txid)
      } else return
      if (!building) changed()
    },
    _replay(user, cursor) {
      user({ op: 'snapshot', rows: [...(building ?? store._rows).values()] })
      for (const frames of pending.values()) frames.forEach(user)
      if (!building) user({ op: 'snapshot-end', cursor })
    },
  }
  return store
}
