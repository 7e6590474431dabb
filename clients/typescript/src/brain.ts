import { createCollection, type OwnCollection } from './collection.js'
import { openWebSocket } from './connection.js'
import { guard, nextId, type Core, type Frame, type Session, type Subscription, type Topic, type User } from './core.js'
import { createSession } from './session.js'
import { createStore, type Rows } from './store.js'
import { openStream } from './stream.js'
import { BrainError, type Brain, type BrainOptions, type Change, type Presence, type Status } from './types.js'

const STATES: Status['state'][] = ['offline', 'connecting', 'catching-up', 'live']

export const createBrain = <Tables = Record<string, any>>(address: string, options: BrainOptions = {}): Brain<Tables> => {
  const { origin, pathname } = new URL(address || '/', globalThis.location?.href)
  const url = (origin + pathname).replace(/^ws/, 'http').replace(/\/+$/, '')
  const memory = `brain:${url}`
  const subscriptions = new Set<Subscription>()
  const collections = new Map<string, OwnCollection<any>>()
  const listeners = new Set<(status: Status) => void>()
  let closed: Status | undefined
  let status: Status = { state: 'offline', why: 'nothing is subscribed' }
  let failures = 0
  let isProbed = false
  let offline = false

  const recall = (key: string) => {
    try {
      return options.storage?.getItem(key) ?? undefined
    } catch {
      return
    }
  }
  const remember = (key: string, value: string) => {
    try {
      options.storage?.setItem(key, value)
    } catch {
      // Full, or forbidden: then it is not remembered.
    }
  }

  const transport = options.transport ?? 'auto'
  const isAuto = transport == 'auto' && !!globalThis.WebSocket
  let isStreaming = transport == 'sse' || (transport == 'auto' && !isAuto) || (isAuto && +recall(memory)! > Date.now())

  const changed = () => {
    const states = [...subscriptions].map(({ _session, _live }): Status => {
      const state = _session!._state
      return state.state == 'live' && !_live ? { state: 'catching-up' } : state
    })
    states.sort((a, b) => STATES.indexOf(a.state) - STATES.indexOf(b.state))
    const next =
      closed ??
      (offline ? { state: 'offline', why: 'the device is offline' } : states[0]) ??
      ({ state: 'offline', why: 'nothing is subscribed' } as Status)
    if (JSON.stringify(next) == JSON.stringify(status)) return
    status = next as Status
    for (const listener of listeners) guard(() => listener(status))
    for (const collection of collections.values()) collection._changed()
  }

  const assign = (subscription: Subscription) => {
    const isFree = ![...main._subscriptions].some(one => one._name == subscription._name)
    const session = !isStreaming && isFree ? main : createSession(core, openStream, false, subscription._session?._fails)
    session._add(subscription)
  }
  const reassign = () => {
    for (const one of subscriptions) part(one)
  }
  const part = (one: Subscription) => {
    one._session!._drop(one)
    assign(one)
  }

  const remove = (subscription: Subscription) => {
    clearTimeout(subscription._timer)
    subscriptions.delete(subscription)
    subscription._session!._drop(subscription)
    changed()
  }

  const core: Core = {
    _url: url,
    _options: options,
    _changed: changed,
    async _token() {
      const { token } = options
      return typeof token == 'function' ? token() : token
    },
    _refuse(subscription, error) {
      remove(subscription)
      for (const user of [...subscription._users]) user({ ...error, type: 'error' })
    },
    _part(subscription) {
      subscription._session!._drop(subscription)
      createSession(core, openStream, false)._add(subscription)
    },
    _opened(isMain) {
      if (!isAuto) return
      if (isMain) {
        failures = 0
        if (isStreaming) {
          isStreaming = isProbed = false
          reassign()
        }
      } else if (isStreaming && !isProbed) {
        // Was it the WebSocket alone, or was the server down for a moment?
        isProbed = true
        main._connect()
      }
    },
    _failed(isMain) {
      if (!isAuto) return
      if (!isMain) {
        if ([...subscriptions].some(one => one._live)) return
        isStreaming = false
        failures = 0
      } else if (isStreaming) return remember(memory, `${Date.now() + 864e5}`)
      else if (++failures < 2) return
      else isStreaming = true
      reassign()
    },
    _finish(how) {
      closed = { state: 'closed', ...how }
      main._stop()
      for (const one of subscriptions) core._refuse(one, { code: how.code ?? 'closed', message: how.why, advice: how.advice })
      changed()
    },
  }
  const main: Session = createSession(core, openWebSocket, true)

  const attach = (topic: Topic, user: User, after?: string, isOwn?: boolean, rowsOnly?: boolean) => {
    const name = JSON.stringify([topic.channel, topic.key, topic.where])
    const equal = [...subscriptions].filter(one => one._name == name)
    let subscription = equal.find(one => !isOwn && !one._own && (!topic.snapshot || one._topic.snapshot == topic.snapshot))
    if (!subscription) {
      // One without users makes room.
      for (const one of equal) if (!one._users.size) remove(one)
      subscription = { _id: nextId(), _topic: topic, _name: name, _own: isOwn, _rowsOnly: rowsOnly, _users: new Set(), _place: after, _fails: 0 }
      if (topic.snapshot) subscription._store = createStore(() => collections.get(name)?._changed())
      subscriptions.add(subscription)
      assign(subscription)
    } else if (topic.snapshot && !rowsOnly) {
      const shared = subscription
      shared._store!._replay(user, shared._session!._place(shared))
      if (shared._live) user({ op: 'live', cursor: shared._session!._place(shared) })
    }
    const used = subscription
    clearTimeout(used._timer)
    used._users.add(user)
    changed()
    return [
      used,
      () => {
        if (used._users.delete(user) && !used._users.size) used._timer = setTimeout(() => remove(used), 1e3)
      },
    ] as const
  }

  const keyOf = (key: any) => (key === undefined || Array.isArray(key) ? key : [key])

  const listen = (channel: string, take: (change: Change<any> | undefined, done: () => void) => void, { where, key, snapshot, limit, from, name, onError }: Frame = {}) => {
    const place = name && `${memory}:${name}`
    const parts = new Set<string>()
    return attach(
      { channel, key: keyOf(key), where, snapshot, limit },
      frame => {
        const { type, op, txid, rows, cursor } = frame
        if (type == 'error') return guard(() => onError?.(new BrainError(frame.message, frame.code, frame.advice)))
        if (op == 'reset') parts.clear()
        else if (txid) frame.last || op == 'commit' ? parts.delete(txid) : parts.add(txid)
        const isPlace = place && cursor && !parts.size && !(op == 'reset' && snapshot)
        const done = () => isPlace && remember(place, cursor)
        if (op == 'commit' || op == 'ping' || op == 'pong' || op == 'until') take(undefined, done)
        else if (rows) {
          if (snapshot) for (const { key, row } of rows) take({ op, channel, key, row }, done)
        } else if (snapshot || op != 'snapshot-end') take({ channel, ...frame } as Change, done)
      },
      (place && recall(place)) || from,
      !!(name || from),
    )[1]
  }

  const ended = () => new BrainError(closed!.why ?? 'closed', closed!.code ?? 'closed', closed!.advice)

  const collection = (channel: string, { where, key }: Frame = {}): OwnCollection<any> => {
    const topic = { channel, key: keyOf(key), where, snapshot: true }
    const name = JSON.stringify([channel, topic.key, where])
    const known = collections.get(name)
    if (known) return known
    const made = createCollection<any>(
      () => status,
      own => {
        collections.set(name, own)
        own._error = undefined
        const user = (frame: Frame) => {
          if (frame.type == 'error') {
            own._error = new BrainError(frame.message, frame.code, frame.advice)
            own._changed()
          }
        }
        const [subscription, detach] = attach(topic, user, undefined, false, true)
        return [subscription._store as Rows, detach]
      },
    )
    collections.set(name, made)
    return made
  }

  const brain: Brain<any> = {
    subscribe(channels, listener, options) {
      if (closed) throw ended()
      const offs = [channels].flat().map(channel =>
        listen(channel as string, (change, done) =>
          guard(() => {
            if (change) listener(change)
            done()
          }), options),
      )
      return () => offs.forEach(off => off())
    },
    changes: undefined as any,
    collection,
    presence: undefined as any as () => Presence,
    publish: undefined as any,
    until: undefined as any,
    onStatus(listener) {
      const own = (now: Status) => listener(now)
      listeners.add(own)
      guard(() => own(status))
      return () => listeners.delete(own)
    },
    get status() {
      return status
    },
    close: () => core._finish({ why: 'closed by the application' }),
  }
  return brain
}
