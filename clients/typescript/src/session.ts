import { backoff, nextId, type Core, type Frame, type Open, type Session, type Subscription, type Timer, type Transport } from './core.js'
import { BrainError, type Status } from './types.js'

/** A connection with the subscriptions that use it; only the main one may have several. */
export const createSession = (core: Core, open: Open, isMain: boolean, fails = 0): Session => {
  const subscriptions = new Set<Subscription>()
  const numbers = new Map<number, Subscription>()
  const calls = new Map<string, [(frame: Frame) => void, (error: BrainError) => void]>()
  let transport: Transport | undefined
  let attempt = 0
  let isOpen = false
  let timer: Timer | undefined
  let watch: Timer | undefined
  let renewal: Timer | undefined
  let heard = 0
  let user: string | null
  let token: string | null | undefined
  let refused: string | null | undefined
  /** The latest place of the connection, and the one before. */
  let cursor: string | undefined
  let before: string | undefined

  const state = (state: Status['state'], why?: string, advice?: string, code?: number) => {
    session._state = { state, why, advice, code }
    core._changed()
  }

  const find = (id: string) =>
    isMain ? [...subscriptions].find(one => one._id == id) : [...subscriptions][0]

  const place = (subscription: Subscription) =>
    // Another subscription's frame may have come just before this one's of the same change.
    subscription._live && subscription._place != cursor ? before : subscription._place

  const freeze = (subscription: Subscription) => {
    subscription._place = place(subscription)
    subscription._live = false
    for (const [number, one] of numbers) if (one == subscription) numbers.delete(number)
  }

  const stop = () => {
    attempt++
    clearTimeout(timer)
    clearTimeout(watch)
    clearTimeout(renewal)
    timer = undefined
    isOpen = false
    transport?._close()
    transport = undefined
    subscriptions.forEach(freeze)
    cursor = before = undefined
    for (const [, reject] of calls.values())
      reject(new BrainError('the connection was lost', 'unavailable', 'Try again once it is live.'))
    calls.clear()
  }

  const end = (code = 0, why = 'the connection was lost', advice?: string, isTransport = true) => {
    const wasOpen = isOpen
    const [first] = subscriptions
    stop()
    let delay = backoff(session._fails++)
    if (code == 401 || code == 4401) {
      if (typeof core._options.token != 'function')
        return core._finish({ why, advice: 'Give createBrain a function that returns a new token.', code })
      if (token != refused) delay = 0
      refused = token
    } else if (!isMain && first && (code == 400 || code == 403 || (code >= 4500 && code != 4503))) {
      return core._refuse(first, { code, message: why })
    } else if (code >= 4500 && code < 5000) {
      return core._finish({ why, advice, code })
    } else if (!wasOpen && isTransport) core._failed(isMain)
    // Too many connections, too many messages, or a server that is not ready yet.
    if ([429, 503, 1013, 4029].includes(code)) delay += 2e3
    if (!subscriptions.size) return
    state('offline', why, advice, code)
    timer = setTimeout(session._connect, delay)
  }

  const send = (frame: Frame) => transport?._send?.(frame)

  const alive = (milliseconds: number, then: () => void) => {
    clearTimeout(watch)
    watch = setTimeout(then, milliseconds)
  }

  const check = () => {
    if (transport?._send) {
      send({ type: 'ping' })
      alive(3e3, () => end(0, 'the server does not answer'))
    } else if (Date.now() - heard > 44e3) end(0, 'the server is silent')
  }

  const subscribe = (subscription: Subscription) =>
    send({ type: 'subscribe', id: subscription._id, ...subscription._topic, numbers: 'string', after: subscription._place })

  const deliver = (subscription: Subscription, frame: Frame) => {
    subscription._store?._take(frame)
    for (const user of subscription._users) user(frame)
  }

  const caughtUp = (subscription: Subscription) => {
    session._fails = subscription._fails = 0
    subscription._live = true
  }

  const subscribed = (frame: Frame) => {
    const { id, sub, replaces } = frame
    const subscription = find(id)
    if (!subscription) {
      // It was given up before it began. Its number may have become that of another.
      if (!numbers.has(sub)) send({ type: 'unsubscribe', id: nextId(), sub })
      return
    }
    const former = numbers.get(sub)
    if (former && former != subscription) core._part(former)
    numbers.delete(replaces)
    numbers.set(sub, subscription)
    if (!replaces) {
      if (!subscription._place && !subscription._topic.snapshot) {
        caughtUp(subscription)
        before = cursor = frame.cursor
      } else if (subscription._begun && !frame.cursor) deliver(subscription, { op: 'reset', reason: 'the connection was lost' })
      subscription._place = frame.cursor
    }
    subscription._begun = true
  }

  const receive = (frame?: Frame) => {
    heard = Date.now()
    alive(45e3, check)
    if (!frame) return
    const { type, op, id, sub } = frame
    const call = calls.get(id)
    if (type == 'hello') {
      isOpen = true
      user = frame.user
      session._state = { state: 'live' }
      if (isMain) subscriptions.forEach(subscribe)
      core._opened(isMain)
    } else if (type == 'closed') end(frame.code, frame.reason, frame.advice)
    else if (type == 'subscribed') subscribed(frame)
    else if (call) {
      calls.delete(id)
      if (type == 'error') call[1](new BrainError(frame.message, frame.code, frame.advice))
      else call[0](frame)
    } else if (type == 'error') failed(find(id), frame)
    else if (type == 'unsubscribed') {
      const subscription = numbers.get(sub)
      if (subscription) {
        freeze(subscription)
        if (frame.code == 'not_allowed') failed(subscription, { message: 'not allowed any more', ...frame })
      }
    }
    const at = op || /^p[io]ng|until/.test(type) ? frame.cursor : undefined
    if (sub && op) {
      const subscription = numbers.get(sub)
      if (subscription) changed(subscription, frame, at)
    } else if (at) {
      before = cursor = at
      for (const one of numbers.values()) if (one._live) deliver(one, { op: type, ...frame })
    }
    if (type || op == 'live' || op == 'reset') core._changed()
  }

  const changed = (subscription: Subscription, frame: Frame, at?: string) => {
    const { op } = frame
    if (op == 'reset' && subscription._topic.snapshot) subscription._live = subscription._place = undefined
    else if (at) {
      subscription._place = at
      if (op == 'live') caughtUp(subscription), (before = cursor = at)
      else if (subscription._live && cursor != at) (before = cursor), (cursor = at)
    }
    deliver(subscription, frame)
  }

  const failed = (subscription: Subscription | undefined, frame: Frame) => {
    if (!subscription) return
    const now = attempt
    if (/unavailable$/.test(frame.code))
      setTimeout(() => now == attempt && subscriptions.has(subscription) && subscribe(subscription), backoff(subscription._fails++))
    else if (frame.code == 'not_allowed' && token && !user) end(4401, frame.message)
    else core._refuse(subscription, frame)
  }

  const renew = () => {
    clearTimeout(renewal)
    const left = expiry(token) - Date.now()
    if (isMain && left > 0)
      renewal = setTimeout(async () => {
        const now = attempt
        if (left > 2 ** 31) return renew()
        try {
          const next = await core._token()
          if (now != attempt || next == token) return
          token = next
          renew()
          if (next) await session._call!({ type: 'auth', token: next })
        } catch (error) {
          if (now == attempt) end(0, `${error}`, undefined, false)
        }
      }, Math.min(left - Math.min(3e4, left / 10), 2 ** 31 - 1))
  }

  const session: Session = {
    _subscriptions: subscriptions,
    _fails: fails,
    _state: { state: 'offline' },
    _place: place,
    _stop: stop,
    async _connect() {
      stop()
      const now = attempt
      state('connecting')
      try {
        token = await core._token()
        if (now != attempt) return
        renew()
        alive(1e4, () => end(0, 'the server does not answer'))
        transport = open(
          core,
          token,
          frame => now == attempt && receive(frame),
          (...how) => now == attempt && end(...how),
          [...subscriptions][0]!,
        )
      } catch (error) {
        if (now == attempt) end(0, `${error}`, undefined, false)
      }
    },
    _add(subscription) {
      subscriptions.add(subscription)
      subscription._session = session
      if (isOpen) subscribe(subscription)
      else if (!transport && !timer && subscriptions.size == 1) timer = setTimeout(session._connect, session._fails ? backoff(session._fails) : 0)
    },
    _drop(subscription) {
      for (const [sub, one] of numbers) if (one == subscription) send({ type: 'unsubscribe', id: nextId(), sub })
      freeze(subscription)
      subscriptions.delete(subscription)
      if (!subscriptions.size) stop()
    },
    _wake() {
      if (timer) session._connect()
      else if (isOpen) check()
    },
    _call: frame =>
      new Promise((resolve, reject) => {
        if (!isOpen || !transport?._send)
          return reject(new BrainError('not connected by WebSocket', 'unavailable', 'Try again once the status is live.'))
        const id = nextId()
        calls.set(id, [resolve, reject])
        send({ id, ...frame })
      }),
  }
  return session
}

/** When a token expires, in milliseconds since the epoch; NaN if that is not known. */
export const expiry = (token: string | null | undefined) => claims(token).exp * 1e3

export const claims = (token: string | null | undefined): Frame => {
  try {
    return JSON.parse(atob(token!.split('.')[1]!.replace(/-/g, '+').replace(/_/g, '/')))
  } catch {
    return {}
  }
}
