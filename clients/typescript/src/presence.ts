import type { Collection, CollectionState, Presence, PresenceState, PresenceStatus } from './types.js'

/** Who is online, of the rows of the channel `presence`. */
export const createPresence = (rows: Collection<any>, set: (status: PresenceStatus) => Promise<void>): Presence => {
  let of: CollectionState<any> | undefined
  let state: PresenceState
  return {
    get() {
      const now = rows.get()
      if (now != of) state = { users: Object.fromEntries(now.rows.map(row => [row.userId, row.status])), ready: now.ready }
      of = now
      return state
    },
    subscribe: rows.subscribe,
    set,
  }
}
