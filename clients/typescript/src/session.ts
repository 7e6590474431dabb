import {
  backoff, claims, errorOf, nextId,
  type Core, type Frame, type Open, type Session, type Subscription, type Timer, type Token, type Transport,
} from './core.js'
import { BrainError, type Status } from './types.js'

const LOST = 'connection lost'
const SILENT = 'no answer'

/** A connection with the subscriptions that use it; only the main one may have several. */
export const createSession = (core: Core, open: Open, isMain: boolean): Session => {
  const subscriptions = new Set<Subscription>()
  const numbers = new Map<number, Subscription>()
  const calls = new Map<string, [(frame: Frame) => void, (error: BrainError) => void]>()
  let transport: Transport | undefined
  /** Which attempt to connect it is: what comes from an earlier one does not count. */
  let attempt = 0
  let isOpen = false
  /** Attempts since it caught up. */
  let fails = 0
  /** A ping waits for its answer. */
  let isAsked = false
  let timer: Timer | undefined
  let watch: Timer | undefined
  let renewal: Timer | undefined
  let heard: number
  let user: string | null
  let token: Token
  /** The latest place of the connection, and the one before. */
  let cursor: string | undefined
  let before: string | undefined

  const state = (state: Status['state'], why?: string, code?: number) => {
    session._state = { state, why, code }
    core._changed()
  }

  const find = (id: string) => [...subscriptions].find(one => !isMain || one._id == id)

  const freeze = (subscription: Subscription) => {
    subscription._place = session._place(subscription)
    numbers.delete(subscription._number!)
    subscription._live = subscription._number = undefined
  }

  const stop = () => {
    attempt++
    for (const one of [timer, watch, renewal]) clearTimeout(one)
    isOpen = isAsked = false
    transport?._close()
    timer = transport = undefined
    subscriptions.forEach(freeze)
    cursor = before = undefined
    for (const [, reject] of calls.values()) reject(new BrainError(LOST, 'unavailable'))
    calls.clear()
  }

  const end = (code = 0, why = LOST, isTransport = true) => {
    const wasOpen = isOpen
    const [first] = subscriptions
    stop()
    const isToken = code == 401 || code == 4401
    // A function has another token for the next attempt.
    if (!isToken || typeof core._options.token != 'function') {
      if (!isMain && (code == 400 || code == 403 || (code >= 4500 && code != 4503)))
        return core._refuse(first!, { code, message: why })
      if (isToken || code >= 4500) return core._finish({ why, advice: 'Use a new token.', code })
      if (!wasOpen && isTransport) core._failed(isMain)
    }
    if (!subscriptions.size) return
    // Too many connections or messages, or a server that is not ready yet.
    timer = setTimeout(session._connect, backoff(fails++) + +[429, 503, 1013, 4029].includes(code) * 2e3)
    state('offline', why, code)
  }

  const send = (frame: Frame) => transport?._send?.(frame)

  /** Expect a frame: soon, or else a ping asks for one. */
  const expect = (soon: unknown, milliseconds = 3e3) => {
    clearTimeout(watch)
    watch = soon ? setTimeout(silent, milliseconds) : setTimeout(check, 45e3)
  }

  const silent = () => end(0, SILENT)

  const check = () => {
    if (session._sends()) {
      if (!isAsked) send({ type: 'ping' })
      expect((isAsked = true))
    } else if (Date.now() - heard > 44e3) silent()
  }

  const subscribe = ({ _id, _topic, _place }: Subscription) =>
    send({ type: 'subscribe', id: _id, ..._topic, numbers: 'string', after: _place })

  const deliver = (subscription: Subscription, frame: Frame) => {
    const hasRows = subscription._store?._take(frame)
    for (const user of subscription._users) user(frame, hasRows)
  }

  const caughtUp = (subscription: Subscription, at: string) => {
    fails = 0
    subscription._live = true
    before = cursor = at
  }

  const subscribed = (frame: Frame, subscription = find(frame.id)) => {
    const { sub, replaces } = frame
    const former = numbers.get(sub)
    if (!subscription) {
      // It was given up before it began. Its number may be that of another by now.
      if (!former) send({ type: 'unsubscribe', id: nextId(), sub })
      return
    }
    // Filters that mean the same have one number, which is that of the latest.
    if (former && former != subscription) {
      freeze(former)
      core._part(former)
    }
    numbers.delete(replaces)
    numbers.set((subscription._number = sub), subscription)
    if (!replaces) {
      if (!frame.cursor) {
        if (subscription._begun) deliver(subscription, { op: 'reset', reason: LOST })
      } else {
        if (!subscription._place) caughtUp(subscription, frame.cursor)
        deliver(subscription, frame)
      }
      subscription._place = frame.cursor
    }
    subscription._begun = true
  }

  const failed = (subscription: Subscription | undefined, frame: Frame) => {
    if (!subscription) return
    const now = attempt
    if (/unavailable$/.test(frame.code))
      setTimeout(
        () => now == attempt && subscriptions.has(subscription) && subscribe(subscription),
        backoff(fails++),
      )
    else if (frame.code == 'not_allowed' && token && !user) end(4401, frame.message)
    else core._refuse(subscription, frame)
  }

  const changed = (subscription: Subscription, frame: Frame) => {
    const { op, cursor: at } = frame
    if (op == 'reset' && subscription._topic.snapshot) subscription._live = subscription._place = undefined
    else if (at) {
      subscription._place = at
      if (op == 'live') caughtUp(subscription, at)
      else if (subscription._live && cursor != at) {
        before = cursor
        cursor = at
      }
    }
    deliver(subscription, frame)
  }

  const receive = (frame?: Frame) => {
    heard = Date.now()
    // Other frames may be older than the link's death.
    if (frame?.type == 'pong') isAsked = false
    expect(isAsked)
    if (!frame) return
    const { type, op, id, sub, txid, cursor: at } = frame
    const call = calls.get(id)
    const subscription = isMain ? numbers.get(sub) : find(id)
    if (op) {
      if (subscription) changed(subscription, frame)
    } else if (type == 'hello') {
      isOpen = true
      user = frame.user
      session._state = { state: 'live' }
      if (isMain) subscriptions.forEach(subscribe)
      core._opened(isMain)
    } else if (type == 'status') session._state = frame.status
    else if (type == 'closed') end(frame.code, frame.reason)
    else if (type == 'subscribed') subscribed(frame)
    else if (call) {
      calls.delete(id)
      if (type == 'error') call[1](errorOf(frame))
      else call[0](frame)
    } else if (type == 'error') failed(find(id), frame)
    else if (type == 'unsubscribed' && subscription) {
      freeze(subscription)
      if (frame.code == 'not_allowed') failed(subscription, frame)
    }
    // What is for no one subscription is a place for all that have caught up.
    if (at && !sub && type != 'hello' && type != 'subscribed') {
      before = cursor = at
      for (const one of subscriptions) if (one._live && (isMain || !op)) deliver(one, { op: 'commit', txid, cursor: at })
    }
    if (type || op == 'live' || op == 'reset') core._changed()
  }

  const renew = () => {
    const left = claims(token).exp * 1e3 - Date.now()
    if (isMain && left > 0)
      renewal = setTimeout(async () => {
        const now = attempt
        // One that cannot be had is asked for again.
        const next = await core._token().catch(() => token)
        if (now != attempt) return
        if (next && next != token)
          session._call({ type: 'auth', token: (token = next) }).catch(error => now == attempt && end(0, error.message))
        renew()
      }, Math.min(left - Math.min(3e4, left / 10), 2 ** 31 - 1))
  }

  const session: Session = {
    _subscriptions: subscriptions,
    _state: { state: 'connecting' },
    _sends: () => isOpen && transport?._send,
    _place: ({ _live, _place }) =>
      // Another subscription's frame of the same change may have come, and this one's not.
      _live && _place != cursor ? before : _place,
    _stop: stop,
    async _connect() {
      stop()
      const now = attempt
      state('connecting')
      try {
        token = await core._token()
        if (now != attempt) return
        renew()
        expect(1, 1e4)
        transport = open(
          core,
          token,
          frame => now == attempt && receive(frame),
          (code, why) => now == attempt && end(code, why),
          [...subscriptions][0]!,
        )
      } catch (error) {
        if (now == attempt) end(0, `${error}`, false)
      }
    },
    _add(subscription) {
      subscriptions.add(subscription)
      subscription._session = session
      if (isOpen) subscribe(subscription)
      else if (subscriptions.size == 1 && !transport) timer = setTimeout(session._connect, fails && backoff(fails))
    },
    _drop(subscription) {
      const sub = subscription._number!
      if (numbers.has(sub)) send({ type: 'unsubscribe', id: nextId(), sub })
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
        if (!session._sends())
          return reject(new BrainError('no WebSocket', 'unavailable'))
        const id = nextId()
        calls.set(id, [resolve, reject])
        send({ ...frame, id })
      }),
  }
  return session
}
