import type { Brain, Collection, Json, Presence, Query, Status } from 'brain-realtime'

export interface Order {
  id: number
  status: string
}

export interface Tables {
  orders: Order
}

type State = ReturnType<Collection<Order>['get']>
type Users = ReturnType<Presence['get']>

/** A value that listeners follow, in the shape of `Collection` and `Presence`. */
export class Store<Value> {
  readonly listeners = new Set<() => void>()
  /** How often a listener was added. */
  subscriptions = 0

  constructor(private value: Value) {}

  get = (): Value => this.value

  set(value: Value): void {
    this.value = value
    for (const listener of this.listeners) listener()
  }

  subscribe = (listener: () => void): (() => void) => {
    this.subscriptions += 1
    this.listeners.add(listener)
    return () => this.listeners.delete(listener)
  }
}

/** The orders of one query. As in the core, unchanged rows keep their identity. */
export class Orders extends Store<State> {
  constructor(readonly query: Query<Order> | undefined) {
    super({ rows: [], ready: false, status: { state: 'connecting' } })
  }

  show(...rows: Order[]): void {
    const known = new Map(this.get().rows.map((row) => [JSON.stringify(row), row]))
    const kept = rows.map((row) => known.get(JSON.stringify(row)) ?? row)
    this.set({ rows: kept, ready: true, status: { state: 'live' } })
  }

  fail(error: Error): void {
    this.set({ ...this.get(), error: error as NonNullable<State['error']> })
  }

  byKey = (key: Json): Order | undefined => this.get().rows.find(({ id }) => id === key)

  entries = (): IterableIterator<[Json[], Order]> =>
    this.get().rows.map((row): [Json[], Order] => [[row.id], row]).values()
}

/** A server in memory, which sends what the test calls, and `client`, which the adapters use. */
export class FakeBrain {
  readonly opened: Orders[] = []
  readonly users = new Store<Users>({ users: {}, ready: false })
  readonly stated: string[] = []
  readonly connection = new Store<Status>({ state: 'connecting' })
  readonly client: Brain<Tables>
  private readonly awaited = new Map<string, () => void>()

  constructor() {
    const { connection } = this
    this.client = {
      collection: ((_channel: string, query?: Query<Order>) => this.orders(query)) as Brain<Tables>['collection'],
      presence: () => ({
        get: this.users.get,
        subscribe: this.users.subscribe,
        set: async (status) => void this.stated.push(status),
      }),
      onStatus(listener) {
        listener(connection.get())
        return connection.subscribe(() => listener(connection.get()))
      },
      get status() {
        return connection.get()
      },
      until: (txid) => new Promise((resolve) => this.awaited.set(txid, resolve)),
      subscribe: unused,
      changes: unused,
      publish: unused,
      close: unused,
    }
  }

  /** The orders of a query: as in the core, of equal ones they are the same. */
  orders(query?: Query<Order>): Orders {
    const identity = JSON.stringify(query)
    const known = this.opened.find((orders) => JSON.stringify(orders.query) === identity)
    if (known) return known
    const orders = new Orders(query)
    this.opened.push(orders)
    return orders
  }

  /** All of a transaction has arrived. */
  arrived(txid: string): void {
    this.awaited.get(txid)?.()
  }
}

function unused(): never {
  throw new Error('no adapter calls this')
}
