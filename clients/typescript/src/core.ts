import { BrainError, type BrainOptions, type Json, type Status } from './types.js'

/** A frame of brain.v1, in either direction. */
export interface Frame {
  [name: string]: any
}

/** `hasRows`: by this frame, the rows of the subscription have changed. */
export type User = (frame: Frame, hasRows?: unknown) => void

/** What a `subscribe` asks for, besides its place. */
export interface Topic {
  channel: string
  key?: readonly Json[]
  where?: object
  snapshot?: boolean | 'exact'
  limit?: number
}

/** A subscription at the server, of one or more users. */
export interface Subscription {
  _id: string
  _topic: Topic
  /** Subscriptions of which this is equal have one number on a connection. */
  _name: string
  /** Not shared: it begins at a place of its own. */
  _own?: boolean
  /** Its users need the present rows, not how they came about. */
  _rowsOnly?: boolean
  _users: Set<User>
  /** Where to go on; undefined: it begins anew. */
  _place?: string
  _begun?: boolean
  _live?: boolean
  _store?: Store
  _session?: Session
  _number?: number
  _timer?: Timer
}

export interface Store {
  /** Return whether the rows that show have changed. */
  _take(frame: Frame): unknown
  /** Send a user what brings it up to the present. */
  _replay(user: User, cursor?: string): void
}

/** One connection, which is made again whenever it ends, while it has subscriptions. */
export interface Session {
  _subscriptions: Set<Subscription>
  _fails: number
  _state: Status
  /** True if frames can be sent. */
  _sends(): unknown
  _add(subscription: Subscription): void
  /** Give a subscription up, with its place as it is by now. */
  _drop(subscription: Subscription): void
  _place(subscription: Subscription): string | undefined
  _connect(): void
  /** Make sure that it is alive, or try again now. */
  _wake(): void
  _stop(): void
  _call(frame: Frame): Promise<Frame>
}

export interface Transport {
  _send?(frame: Frame): void
  _close(): void
}

export type Open = (
  core: Core,
  token: Token,
  receive: (frame?: Frame) => void,
  end: (code?: number, why?: string) => void,
  subscription: Subscription,
) => Transport

export interface Core {
  _url: string
  _options: BrainOptions
  _token(): Promise<Token>
  _changed(): void
  _refuse(subscription: Subscription, error: Frame): void
  /** Go on with a subscription on a connection of its own. */
  _part(subscription: Subscription): void
  _opened(isMain: boolean): void
  _failed(isMain: boolean): void
  _finish(how: Omit<Status, 'state'>): void
  _attach(topic: Topic, user: User, after?: string, isOwn?: boolean, rowsOnly?: boolean): readonly [Subscription, () => void]
  /** Go on by this transport; without one, by the client's own. */
  _go(open?: Open): void
}

export type Token = string | null | undefined
export type Timer = ReturnType<typeof setTimeout>

let ids = 0
export const nextId = () => `${++ids}`

/** Call what the application has given; what it throws is reported, and harms nothing else. */
export const guard = (call: () => void) => {
  try {
    call()
  } catch (error) {
    ;(globalThis.reportError ?? console.error)(error)
  }
}

export const json = JSON.stringify

export const errorOf = ({ message, code, advice }: Frame) => new BrainError(message ?? code, code, advice)

export const backoff = (fails: number) => Math.random() * Math.min(1e4, 250 * 2 ** fails)

/** Return what `call` does; undefined if it throws. */
export const optional = <Value>(call: () => Value) => {
  try {
    return call()
  } catch {
    return
  }
}

/** The claims of a token, if it is a JWT. */
export const claims = (token: Token): Frame =>
  optional(() => JSON.parse(atob(token!.split('.')[1]!.replace(/-/g, '+').replace(/_/g, '/')))) ?? {}
