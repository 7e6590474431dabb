export type Json = null | boolean | number | string | readonly Json[] | { readonly [name: string]: Json }

/** One value, or the values of a primary key in their order. */
export type Key = Json | readonly Json[]

export type Op =
  | 'insert'
  | 'update'
  | 'delete'
  | 'leave'
  | 'truncate'
  | 'message'
  | 'snapshot'
  | 'snapshot-end'
  | 'reset'
  | 'live'

/** What happened to one row, or to a subscription. The rows of a snapshot come one by one. */
export interface Change<Row = Record<string, any>> {
  op: Op
  channel: string
  key?: Json[]
  row?: Row
  old?: Row
  /** Columns that are too large or cannot be shown. */
  omitted?: string[]
  /** Of a message. */
  type?: string
  data?: any
  private?: boolean
  at?: string
  /** The place in the log after this change, as `from` takes it. */
  cursor?: string
  txid?: string
  /** True in the last change that its transaction has for this subscription. */
  last?: boolean
  /** Of a reset. */
  reason?: string
}

type Comparable<Value> = Exclude<Value, null | undefined> | (Value extends number ? string : never)

export interface Comparisons<Value> {
  eq?: Comparable<Value>
  neq?: Comparable<Value>
  gt?: Comparable<Value>
  gte?: Comparable<Value>
  lt?: Comparable<Value>
  lte?: Comparable<Value>
  in?: readonly Comparable<Value>[]
  is?: null
}

/** What a row has to match: all members have to hold. */
export type Filter<Row = Record<string, any>> = {
  [Column in keyof Row]?: Comparable<Row[Column]> | Comparisons<Row[Column]>
} & { and?: readonly Filter<Row>[]; or?: readonly Filter<Row>[] }

export interface Query<Row = Record<string, any>> {
  where?: Filter<Row>
  /** The primary key of one row. */
  key?: Key
}

export interface SubscribeOptions<Row = Record<string, any>> extends Query<Row> {
  /** The rows come first: page by page, or those of one moment. */
  snapshot?: boolean | 'exact'
  /** Of rows in a page, 1 to 500. */
  limit?: number
  /** A cursor: what happened since then comes first. */
  from?: string
  /** Under which the cursor is kept in `storage`. Without one, none is. */
  name?: string
  /** Called if the subscription is refused for good. */
  onError?: (error: BrainError) => void
}

export type ChannelOf<Tables> = keyof Tables & string
export type RowOf<Tables, Channel> = Channel extends keyof Tables ? Tables[Channel] : Record<string, any>

export interface Brain<Tables = Record<string, any>> {
  /** Call `listener` with each change, until the function that is returned is called. */
  subscribe<Channel extends ChannelOf<Tables>>(
    channels: Channel | readonly Channel[],
    listener: (change: Change<RowOf<Tables, Channel>>) => void,
    options?: SubscribeOptions<RowOf<Tables, Channel>>,
  ): () => void
  /** Iterate over the changes; throws a `BrainError` if the subscription is refused for good. */
  changes<Channel extends ChannelOf<Tables>>(
    channel: Channel,
    options?: Omit<SubscribeOptions<RowOf<Tables, Channel>>, 'onError'>,
  ): AsyncIterableIterator<Change<RowOf<Tables, Channel>>>
  /** The rows of a table, kept up to date. Equal calls return the same object while it is alive. */
  collection<Channel extends ChannelOf<Tables>>(
    channel: Channel,
    query?: Query<RowOf<Tables, Channel>>,
  ): Collection<RowOf<Tables, Channel>>
  presence(): Presence
  publish(channel: string, type: string, data?: Json, options?: { to?: string }): Promise<{ txid: string }>
  /** Resolves once all that a transaction has for this client has arrived. */
  until(txid: string): Promise<void>
  /** Call `listener` with the present status at once, and then whenever it changes. */
  onStatus(listener: (status: Status) => void): () => void
  readonly status: Status
  close(): void
}

export interface CollectionState<Row> {
  rows: readonly Row[]
  /** True once all rows are there. */
  ready: boolean
  status: Status
  /** Why the subscription was refused for good. */
  error?: BrainError
}

export interface Collection<Row = Record<string, any>> {
  /** The same object until something has changed; unchanged rows keep their identity. */
  get(): CollectionState<Row>
  /** Connects with the first listener, disconnects a second after the last. */
  subscribe(listener: () => void): () => void
  byKey(key: Key): Row | undefined
  entries(): Iterable<[key: Json[], row: Row]>
}

export type PresenceStatus = 'online' | 'away' | 'busy' | 'offline'

export interface PresenceState {
  /** The status of each user who is not offline. */
  users: Readonly<Record<string, string>>
  ready: boolean
}

export interface Presence {
  get(): PresenceState
  subscribe(listener: () => void): () => void
  set(status: PresenceStatus): Promise<void>
}

/**
 * `connecting`: trying. `live`: every subscription is up to date. `catching-up`: connected, but
 * not all of them are. `offline`: waiting for the next attempt, or for a first subscription.
 * `closed`: for good.
 */
export interface Status {
  state: 'connecting' | 'live' | 'catching-up' | 'offline' | 'closed'
  why?: string
  /** What to do about it. */
  advice?: string
  /** The close code. */
  code?: number
}

export class BrainError extends Error {
  declare code: string | number
  declare advice?: string
  constructor(message: string, code: string | number, advice?: string) {
    super(message)
    this.code = code
    this.advice = advice
  }
}

export interface BrainOptions {
  /** A token, or how to get one: called at each attempt to connect, and before the last expires. */
  token?: string | (() => string | null | Promise<string | null>)
  /** `auto`: a WebSocket, or server-sent events where those do not get through. */
  transport?: 'auto' | 'websocket' | 'sse'
  /** Where cursors are kept, as `localStorage`. */
  storage?: Pick<Storage, 'getItem' | 'setItem' | 'removeItem'>
  /** All tabs of a user share the connection of one of them. */
  tabs?: boolean
}
