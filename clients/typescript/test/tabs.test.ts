import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { createBrain, type BrainOptions } from '../src/index.js'
// Loaded before it is asked for, as the clock of these tests stands still.
import '../src/tabs.js'
import { install, jwt, pass, Socket, uninstall, type Frame } from './server.js'

/** The locks of a browser, for tabs that live in one process. */
class Locks {
  #queues = new Map<string, (() => void)[]>()

  /** How many locks are held. */
  get held() {
    return [...this.#queues.values()].filter(({ length }) => length).length
  }

  request(name: string, { signal }: { signal?: AbortSignal }, hold: () => Promise<void>) {
    return new Promise<void>((resolve, reject) => {
      const queue = this.#queues.get(name) ?? []
      this.#queues.set(name, queue)
      const leave = () => {
        const isFirst = queue[0] == run
        queue.splice(queue.indexOf(run), 1)
        if (isFirst) queue[0]?.()
      }
      const run = () => {
        signal?.removeEventListener('abort', give)
        queueMicrotask(() => hold().then(resolve, reject).finally(leave))
      }
      const give = () => {
        leave()
        reject(signal!.reason)
      }
      signal?.addEventListener('abort', give)
      if (queue.push(run) == 1) run()
    })
  }
}

class Channel {
  static all = new Set<Channel>()
  onmessage?: (event: { data: unknown }) => void
  constructor(readonly name: string) {
    Channel.all.add(this)
  }
  postMessage(data: unknown) {
    if (!Channel.all.has(this)) throw new DOMException('closed', 'InvalidStateError')
    if (process.env.TRACE) console.log(Date.now() % 1e6, JSON.stringify(data).slice(0, 200))
    for (const other of Channel.all)
      if (other != this && other.name == this.name)
        setTimeout(() => Channel.all.has(other) && other.onmessage?.({ data: structuredClone(data) }))
  }
  close() {
    Channel.all.delete(this)
  }
}

let events: EventTarget

beforeEach(() => {
  install()
  Channel.all.clear()
  events = new EventTarget()
  vi.stubGlobal('addEventListener', events.addEventListener.bind(events))
  vi.stubGlobal('navigator', { onLine: true, locks: new Locks() })
  vi.stubGlobal('BroadcastChannel', Channel)
})
afterEach(uninstall)

/** A tab that shows the orders, and hears each change. */
const tab = async (options: BrainOptions = {}) => {
  const brain = createBrain('ws://host', { tabs: true, ...options })
  const orders = brain.collection('orders')
  orders.subscribe(() => {})
  const keys: unknown[] = []
  brain.subscribe('news', change => keys.push(change.key?.[0] ?? change.op))
  await vi.waitFor(() => expect(brain.status.state).not.toBe('offline'))
  await pass(10)
  return { brain, orders, keys, ids: () => orders.get().rows.map(row => row.id) }
}

const insert = (sub: number, channel: string, key: number): Frame => ({
  sub, op: 'insert', channel, key: [key], row: { id: key }, txid: `${key}`, last: true, cursor: `c${key}`,
})

/** Answer what a leading tab has asked for: the orders, with these rows, and the news. */
const serve = async (...rows: number[]) => {
  Socket.last.hello('ann')
  for (const { id, channel, after } of Socket.last.of('subscribe')) {
    const sub = channel == 'orders' ? 1 : 2
    const cursor = after ?? (sub == 1 ? undefined : 'c0')
    Socket.last.deliver({ type: 'subscribed', id, sub, channel, cursor })
    if (sub == 1 && !after)
      Socket.last.deliver(
        { sub, op: 'snapshot', channel, rows: rows.map(id => ({ key: [id], row: { id } })) },
        { sub, op: 'snapshot-end', cursor: 'c0' },
      )
    if (sub == 1 || after) Socket.last.deliver({ sub, op: 'live', cursor: after ?? 'c0' })
  }
  await pass(10)
}

test('two tabs share one connection, and both have everything', async () => {
  const first = await tab()
  await serve(1)
  const second = await tab()
  expect(Socket.all.length).toBe(1)
  expect(second.ids()).toEqual([1])
  expect(second.brain.status.state).toBe('live')
  Socket.last.deliver(insert(1, 'orders', 2), insert(2, 'news', 3))
  await pass(10)
  for (const { ids, keys } of [first, second]) {
    expect(ids()).toEqual([1, 2])
    expect(keys).toEqual([3])
  }
  expect(Socket.last.of('subscribe').length).toBe(2)
})

test('when the leading tab is closed, another goes on where it was: nothing is lost, nothing comes twice', async () => {
  const first = await tab()
  await serve(1)
  const second = await tab()
  const third = await tab()
  Socket.last.deliver(insert(1, 'orders', 2), insert(2, 'news', 3))
  await pass(10)
  first.brain.close()
  await pass(1000)
  expect(Socket.all.length).toBe(2)
  await serve()
  expect(Socket.last.of('subscribe')).toMatchObject([
    { channel: 'orders', after: 'c2' },
    { channel: 'news', after: 'c3' },
  ])
  Socket.last.deliver(insert(1, 'orders', 4), insert(2, 'news', 5))
  await pass(1000)
  expect(second.ids()).toEqual([1, 2, 4])
  expect(second.keys).toEqual([3, 'live', 5])
  expect(third.ids()).toEqual([1, 2, 4])
})

test('a leading tab keeps nothing of a tab that is gone', async () => {
  await tab()
  await serve(1)
  const { held } = navigator.locks as unknown as Locks
  const second = await tab()
  second.brain.close()
  await pass(1000)
  expect((navigator.locks as unknown as Locks).held).toBe(held)
})

test('tabs of different users do not join', async () => {
  await tab({ token: jwt({ sub: 'ann' }) })
  await serve()
  await tab({ token: jwt({ sub: 'bob' }) })
  expect(Socket.all.length).toBe(2)
})

test('tabs of one user whose tokens give different rights do not join', async () => {
  await tab({ token: jwt({ sub: 'ann', channels: ['*'], iat: 1, exp: 9e9, jti: 'a' }) })
  await serve()
  await tab({ token: jwt({ sub: 'ann', channels: ['*'], iat: 2, exp: 8e9, jti: 'b' }) })
  expect(Socket.all.length).toBe(1)
  await tab({ token: jwt({ sub: 'ann', channels: ['news'], iat: 1, exp: 9e9, jti: 'a' }) })
  expect(Socket.all.length).toBe(2)
})

test('a tab whose token is of another user leaves', async () => {
  const tokens = [jwt({ sub: 'ann' }), jwt({ sub: 'bob' })]
  const first = await tab({ token: () => tokens[0]! })
  await serve()
  await tab({ token: jwt({ sub: 'ann' }) })
  expect(Socket.all.length).toBe(1)
  tokens.shift()
  Socket.last.end(1006)
  await pass(2000)
  // Bob's, and that of the other tab of Ann.
  expect(Socket.all.slice(1).map(({ protocols }) => protocols[1]).sort()).toEqual(
    [jwt({ sub: 'ann' }), jwt({ sub: 'bob' })].map(token => `brain.token.${token}`),
  )
  expect(first.brain.status.state).toBe('connecting')
})

test('a leading tab that is put into the cache of the browser leaves, and joins again', async () => {
  const own = events
  const first = await tab()
  await serve(1)
  events = new EventTarget()
  vi.stubGlobal('addEventListener', events.addEventListener.bind(events))
  const second = await tab()
  own.dispatchEvent(Object.assign(new Event('pagehide'), { persisted: true }))
  await pass(1000)
  expect(Socket.all[0]!.isClosed).toBe(true)
  expect(Socket.all.length).toBe(2)
  await serve(1)
  Socket.last.deliver(insert(1, 'orders', 2))
  await pass(2000)
  expect(second.ids()).toEqual([1, 2])
  expect(first.ids()).toEqual([1, 2])
})

test('a page that is left for good does not leave', async () => {
  await tab()
  await serve(1)
  events.dispatchEvent(Object.assign(new Event('pagehide'), { persisted: false }))
  await pass(1000)
  expect(Socket.all[0]!.isClosed).toBe(false)
})

test('what a closed tab had subscribed to ends at the leading one', async () => {
  await tab()
  await serve()
  const second = await tab()
  second.brain.collection('late').subscribe(() => {})
  await pass(10)
  Socket.last.grant(3)
  second.brain.close()
  await pass(2000)
  expect(Socket.last.of('unsubscribe')).toMatchObject([{ sub: 3 }])
})

test('a tab that follows can wait for a transaction, and sees when the leading one is offline', async () => {
  await tab()
  await serve()
  const second = await tab()
  const until = second.brain.until('851')
  await pass(10)
  const { id } = Socket.last.of('until')[0]!
  Socket.last.deliver({ type: 'until', id, txid: '851', cursor: 'u' })
  await pass(10)
  expect(await until).toBeUndefined()
  Socket.isRefusing = true
  Socket.last.end(1012, 'restarts')
  await pass(10)
  expect(second.brain.status).toMatchObject({ state: 'offline', why: 'restarts' })
})

test('a subscription that is refused is refused in the tab that follows', async () => {
  await tab()
  await serve()
  const second = await tab()
  const onError = vi.fn()
  second.brain.subscribe('secret', () => {}, { onError })
  await pass(10)
  const { id } = Socket.last.of('subscribe').at(-1)!
  Socket.last.deliver({ type: 'error', id, code: 'not_allowed', message: 'no' })
  await pass(10)
  expect(onError.mock.calls).toMatchObject([[{ code: 'not_allowed', message: 'no' }]])
})

test.each(['navigator', 'BroadcastChannel'])('without %s each tab connects', async name => {
  vi.stubGlobal(name, undefined)
  await tab()
  await tab()
  expect(Socket.all.length).toBe(2)
})
