'use client'

import { useCallback, useMemo, useSyncExternalStore } from 'react'
import type { Brain, Collection, Presence, Query, RowOf, Status } from 'brain-realtime'

/** The rows of a collection, as `useRows` returns them. */
export type Rows<Row> = ReturnType<Collection<Row>['get']>
/** Who is online, as `usePresence` returns it, and `set`, for one's own status. */
export type Users = ReturnType<Presence['get']> & Pick<Presence, 'set'>

// What a server renders, and a browser at first: there is no connection yet.
const CONNECTING: Status = { state: 'connecting' }
const NO_ROWS: Rows<never> = { rows: [], ready: false, status: CONNECTING }
const NO_USERS = { users: {}, ready: false }

/** Return the rows of a channel that match a query, always as they are now. */
export function useRows<Tables, C extends keyof Tables & string>(
  brain: Brain<Tables>,
  channel: C,
  query?: Query<RowOf<Tables, C>>,
): Rows<RowOf<Tables, C>> {
  // A query is mostly written where it is used, and so another object in each render.
  const collection = useMemo(() => brain.collection(channel, query), [brain, channel, JSON.stringify(query)])
  return useStore(collection, NO_ROWS)
}

/** Return who is online, and `set`, which sets one's own status. */
export function usePresence<Tables>(brain: Brain<Tables>): Users {
  const presence = useMemo(() => brain.presence(), [brain])
  const state = useStore(presence, NO_USERS)
  return useMemo(() => ({ ...state, set: (status) => presence.set(status) }), [presence, state])
}

/** Return the status of the connection. */
export function useStatus<Tables>(brain: Brain<Tables>): Status {
  return useStore(
    useMemo(() => ({ get: () => brain.status, subscribe: (listener) => brain.onStatus(listener) }), [brain]),
    CONNECTING,
  )
}

interface Store<State> {
  get(): State
  subscribe(listener: () => void): () => void
}

function useStore<State>(store: Store<State>, initial: State): State {
  const subscribe = useCallback((listener: () => void) => store.subscribe(listener), [store])
  return useSyncExternalStore(subscribe, () => store.get(), () => initial)
}
