import { json, type Frame, type Store } from './core.js'
import type { Json } from './types.js'

export interface Entry {
  key: Json[]
  row: any
}

export interface Rows extends Store {
  _rows: Map<string, Entry>
  _ready?: boolean
}

/** The rows of a subscription with a snapshot. Each transaction is applied as a whole. */
export const createStore = (): Rows => {
  /** The rows of a snapshot that is not complete. */
  let building: Map<string, Entry> | undefined = new Map()
  const pending = new Map<string, Frame[]>()
  const present = () => building ?? store._rows

  const apply = ({ op, key, row, data, channel }: Frame) => {
    // Presence has messages about users in place of rows.
    if (op == 'message') {
      if (channel != 'presence') return
      key = [data.userId]
      row = data.status != 'offline' && data
    }
    const name = json(key)
    const known = store._rows.get(name)
    if (op == 'truncate') present().clear()
    else if (row) present().set(name, known && json(known.row) == json(row) ? known : { key, row })
    else present().delete(name)
  }

  const store: Rows = {
    _rows: new Map(),
    _take(frame) {
      const { op, txid, rows, last } = frame
      const frames = pending.get(txid) ?? []
      frames.push(frame)
      if (op == 'reset') {
        building = new Map()
        pending.clear()
      } else if (rows) rows.forEach(apply)
      else if (op == 'snapshot-end') {
        store._rows = present()
        building = undefined
        store._ready = true
      } else if (op == 'live' || (op == 'commit' && !frames[1])) return
      else if (txid && !last && op != 'commit') {
        pending.set(txid, frames)
        return
      } else {
        pending.delete(txid)
        frames.forEach(apply)
      }
      return !building
    },
    _replay(user, cursor) {
      // It got no notification of what changed before.
      user({ op: 'snapshot', rows: [...present().values()] }, 1)
      for (const frames of pending.values()) frames.forEach(user)
      if (!building) user({ op: 'snapshot-end', cursor })
    },
  }
  return store
}
