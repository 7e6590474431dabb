import { iterate } from './changes.js'
import { createCollection, keyOf, type OwnCollection } from './collection.js'
import { openWebSocket } from './connection.js'
import {
  errorOf, guard, json, nextId, optional,
  type Core, type Frame, type Open, type Subscription, type User,
} from './core.js'
import { createPresence } from './presence.js'
import { createSession } from './session.js'
import { createStore, type Rows } from './store.js'
import { openStream, request } from './stream.js'
import type { Tabs } from './tabs.js'
import type { Brain, BrainOptions, Change, Status } from './types.js'

const IDLE: Status = { state: 'offline', why: 'not subscribed' }
/** The worst of the subscriptions is that of the client. */
const STATES = 'offline connecting catching-up live'
const DAY = 864e5

export const createBrain = <Tables = Record<string, any>>(
  address: string,
  options: BrainOptions = {},
): Brain<Tables> => {
  const { origin, pathname } = new URL(address || '/', globalThis.location?.href)
  const url = (origin + pathname).replace(/^ws/, 'http').replace(/\/+$/, '')
  const prefix = `brain:${url}`
  const { token, storage, transport = 'auto' } = options
  const subscriptions = new Set<Subscription>()
  const collections = new Map<string, OwnCollection<any>>()
  const listeners = new Set<(status: Status) => void>()
  const events = new AbortController()
  let closed: Status | undefined
  let status = IDLE
  let failures = 0
  let isProbed = false
  let tabs: Tabs | undefined

  // It may be full, or forbidden.
  const recall = (name: string) => optional(() => storage?.getItem(name))
  const remember = (name: string, value: string) => optional(() => storage?.setItem(name, value))

  const isAuto = transport == 'auto' && globalThis.WebSocket
  /** Without it, the main session is used. */
  let own: Open | undefined =
    (isAuto ? +recall(prefix)! > Date.now() : transport != 'websocket') ? openStream : undefined
  const follow: Open = (_, __, receive, ___, { _id, _topic, _place, _rowsOnly }) => {
    const { send, close } = tabs!.open(_id, { ..._topic, after: _rowsOnly ? undefined : _place, rowsOnly: _rowsOnly }, receive)
    return { _send: send, _close: close }
  }
  let open = options.tabs ? follow : own

  const changed = () => {
    const states = [...subscriptions].map(({ _session, _live }): Status =>
      _session!._state.state != 'live' || _live ? _session!._state : { state: 'catching-up' },
    )
    states.sort((a, b) => STATES.indexOf(a.state) - STATES.indexOf(b.state))
    const next: Status =
      closed ?? (globalThis.navigator?.onLine === false ? { state: 'offline', why: 'no network' } : (states[0] ?? IDLE))
    if (json(next) == json(status)) return
    status = next
    tabs?.tell(next)
    for (const listener of listeners) guard(() => listener(next))
    for (const collection of collections.values()) collection._changed()
  }

  const assign = (subscription: Subscription, isApart?: boolean) => {
    const isFree = !isApart && ![...main._subscriptions].some(one => one._name == subscription._name)
    const session = !open && isFree ? main : createSession(core, open ?? openStream, false)
    session._add(subscription)
  }
  const move = (subscription: Subscription, isApart?: boolean) => {
    subscription._session!._drop(subscription)
    assign(subscription, isApart)
  }

  const remove = (subscription: Subscription) => {
    subscriptions.delete(subscription)
    // It is made anew when it is asked for again.
    if (subscription._rowsOnly) collections.delete(subscription._name)
    subscription._session?._drop(subscription)
    changed()
  }

  const refuse = (subscription: Subscription) =>
    core._refuse(subscription, { code: 'closed', message: closed!.why, ...closed })

  const core: Core = {
    _url: url,
    _options: options,
    _changed: changed,
    async _token() {
      const now = typeof token == 'function' ? await token() : token
      await loading
      tabs?.join(now)
      return now
    },
    _refuse(subscription, error) {
      remove(subscription)
      for (const user of subscription._users) user({ ...error, type: 'error' })
    },
    _part: subscription => move(subscription, true),
    _opened(isMain) {
      if (!isAuto || open == follow) return
      if (isMain) {
        failures = 0
        isProbed = false
        if (own) {
          own = undefined
          core._go()
        }
      } else if (own && !isProbed) {
        // Is it the WebSocket alone, or was the server down for a moment?
        isProbed = true
        main._connect()
      }
    },
    _failed(isMain) {
      if (!isAuto || open == follow) return
      if (isMain) {
        if (own) return remember(prefix, `${Date.now() + DAY}`)
        if (++failures < 2) return
        own = openStream
      } else {
        if (!own || [...subscriptions].some(one => one._live)) return
        own = undefined
        failures = 0
      }
      core._go()
    },
    _finish(how) {
      tabs?.leave()
      events.abort()
      main._stop()
      closed = { state: 'closed', ...how }
      subscriptions.forEach(refuse)
      changed()
    },
    _go(next = own) {
      open = next
      subscriptions.forEach(one => move(one))
    },
    _attach(topic, user, after, rowsOnly) {
      const name = json([topic.channel, topic.key, topic.where])
      const equal = [...subscriptions].filter(one => one._name == name)
      let used = equal.find(one => !after && !one._own && (!topic.snapshot || one._topic.snapshot == topic.snapshot))
      if (used) {
        const cursor = used._session!._place(used)
        if (!topic.snapshot) used._begun && user({ type: 'subscribed', cursor })
        else {
          used._store!._replay(user, cursor)
          if (used._live) user({ op: 'live', cursor })
        }
        used._rowsOnly &&= rowsOnly
        clearTimeout(used._timer)
        used._users.add(user)
      } else {
        // One without users makes room.
        for (const one of equal) if (!one._users.size) remove(one)
        used = {
          _id: nextId(), _topic: topic, _name: name, _own: !!after, _rowsOnly: rowsOnly,
          _users: new Set([user]), _place: after,
        }
        if (topic.snapshot) used._store = createStore()
        if (closed) refuse(used)
        else {
          subscriptions.add(used)
          assign(used)
        }
      }
      changed()
      const subscription = used
      return [
        subscription,
        () => {
          if (subscription._users.delete(user) && !subscription._users.size)
            subscription._timer = setTimeout(remove, 1e3, subscription)
        },
      ]
    },
  }
  const main = createSession(core, openWebSocket, true)

  const listen = (
    channel: string,
    { where, key, snapshot, limit, from, name, onError }: Frame = {},
    take: (change: Change<any> | undefined, done: () => void) => void,
    fail = onError,
  ) => {
    const place = name && `${prefix}:${name}:${channel}`
    /** Transactions of which only a part has come. */
    const parts = new Set<string>()
    const after = (place && recall(place)) ?? from
    const user = (frame: Frame) => {
      const { rows, sub, ...change } = frame
      const { type, op, txid, cursor, last } = change
      if (type == 'error' && !op)
        guard(() => {
          const error = errorOf(frame)
          if (fail) fail(error)
          // Without a handler, an error is reported.
          else if (error.code != 'closed') throw error
        })
      if (!op) return
      if (op == 'reset') parts.clear()
      if (txid) last || op == 'commit' ? parts.delete(txid) : parts.add(txid)
      const isPlace = place && cursor && !parts.size && !(op == 'reset' && snapshot)
      const done = () => isPlace && remember(place, cursor)
      if (op == 'commit') take(undefined, done)
      else if (snapshot || !op.startsWith('snap'))
        for (const row of rows ?? [{}]) take({ channel, ...change, ...row }, done)
    }
    return core._attach({ channel, key: keyOf(key), where, snapshot, limit }, user, after)[1]
  }

  const collection = (channel: string, { where, key }: Frame = {}): OwnCollection<any> => {
    const topic = { channel, key: keyOf(key), where, snapshot: true }
    const name = json([channel, topic.key, where])
    const made =
      collections.get(name) ??
      createCollection<any>(
        () => status,
        own => {
          own._error = undefined
          const user: User = (frame, hasRows) => {
            if (frame.type == 'error') own._error = errorOf(frame)
            else if (!hasRows) return
            own._changed(hasRows)
          }
          collections.set(name, own)
          const [{ _store }, detach] = core._attach(topic, user, undefined, true)
          return [_store as Rows, detach]
        },
      )
    collections.set(name, made)
    return made
  }

  const call = (frame: Frame): Promise<any> =>
    ([...subscriptions].find(({ _session }) => _session!._sends())?._session ?? main)._call(frame)

  const loadTabs = async () => {
    const { createTabs } = await import('./tabs.js')
    tabs = createTabs(
      {
        attach: (topic, user, after, rowsOnly) => core._attach(topic, user, after, rowsOnly)[1],
        call,
        lead: () => core._go(),
        follow: () => core._go(follow),
      },
      prefix,
      status,
    )
  }
  // Where they cannot share, each connects.
  const loading = options.tabs && loadTabs().catch(() => core._go())

  const wake = () => {
    for (const { _session } of subscriptions) _session!._wake()
    changed()
  }
  for (const type of ['online', 'offline', 'pageshow', 'visibilitychange'])
    globalThis.addEventListener?.(type, wake, events)

  return {
    subscribe(channels: string | readonly string[], listener: (change: Change<any>) => void, options?: Frame) {
      const offs = [channels].flat().map(channel =>
        listen(channel as string, options, (change, done) =>
          guard(() => {
            if (change) listener(change)
            done()
          }),
        ),
      )
      return () => offs.forEach(off => off())
    },
    changes: (channel: string, options?: Frame) => iterate((take, fail) => listen(channel, options, take, fail)),
    collection,
    presence: () => createPresence(collection('presence'), async status => void (await call({ type: 'presence', status }))),
    async publish(channel: string, type: string, data: any, { to }: { to?: string } = {}) {
      const body = json({ channel, type, data, to })
      return (await request(url + '/api/brain/publish', await core._token(), { method: 'POST', body })).json()
    },
    async until(txid: string) {
      for (;;)
        try {
          return void (await call({ type: 'until', txid }))
        } catch (error: any) {
          // A connection that was lost comes again, and with it what the transaction has.
          if (own || closed || !subscriptions.size || error.code != 'unavailable') throw error
          await new Promise(again => setTimeout(again, 250))
        }
    },
    onStatus(listener: (status: Status) => void) {
      const own = (now: Status) => listener(now)
      listeners.add(own)
      guard(() => listener(status))
      return () => listeners.delete(own)
    },
    get status() {
      return status
    },
    close: () => core._finish({ why: 'closed' }),
  } as any
}
