import { getCurrentInstance, onMounted, shallowRef, toValue, watch } from 'vue'
import type { MaybeRefOrGetter, ShallowRef } from 'vue'
import type { Brain, Collection, Presence, Query, RowOf, Status } from 'brain-realtime'

/** The rows of a collection, as `useRows` has them. */
export type Rows<Row> = ReturnType<Collection<Row>['get']>
/** Who is online, as `usePresence` has it, and `set`, for one's own status. */
export type Users = ReturnType<Presence['get']> & Pick<Presence, 'set'>

const CONNECTING: Status = { state: 'connecting' }

/**
 * Return the rows of a channel that match a query, always as they are now.
 *
 * The query may be a ref or a getter. The subscription begins when the component is mounted, so never on a
 * server, and ends with the scope.
 */
export function useRows<Tables, C extends keyof Tables & string>(
  brain: Brain<Tables>,
  channel: C,
  query?: MaybeRefOrGetter<Query<RowOf<Tables, C>> | undefined>,
): Readonly<ShallowRef<Rows<RowOf<Tables, C>>>> {
  return useStore<Rows<RowOf<Tables, C>>>(
    { rows: [], ready: false, status: CONNECTING },
    () => brain.collection(channel, toValue(query)),
    () => JSON.stringify(toValue(query)),
  )
}

/** Return who is online, and `set`, which sets one's own status. */
export function usePresence<Tables>(brain: Brain<Tables>): Readonly<ShallowRef<Users>> {
  const presence = brain.presence()
  const set: Presence['set'] = (status) => presence.set(status)
  return useStore<Users>({ users: {}, ready: false, set }, () => ({
    get: () => ({ ...presence.get(), set }),
    subscribe: (listener) => presence.subscribe(listener),
  }))
}

/** Return the status of the connection. */
export function useStatus<Tables>(brain: Brain<Tables>): Readonly<ShallowRef<Status>> {
  return useStore(CONNECTING, () => ({
    get: () => brain.status,
    subscribe: (listener) => brain.onStatus(listener),
  }))
}

interface Store<State> {
  get(): State
  subscribe(listener: () => void): () => void
}

function useStore<State>(initial: State, open: () => Store<State>, identity: () => unknown = () => 0) {
  const state = shallowRef(initial) as ShallowRef<State>
  const follow = () =>
    watch(
      identity,
      (_now, _before, onCleanup) => {
        const store = open()
        const show = () => {
          state.value = store.get()
        }
        onCleanup(store.subscribe(show))
        show()
      },
      { immediate: true },
    )
  if (getCurrentInstance()) onMounted(follow)
  else follow()
  return state
}
