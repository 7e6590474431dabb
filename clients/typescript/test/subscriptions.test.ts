import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { createBrain, type Brain, type Change, type SubscribeOptions } from '../src/index.js'
import { install, memory, pass, Socket, Stream, uninstall, type Frame } from './server.js'

let brain: Brain
let number = 0

beforeEach(() => {
  install()
  brain = createBrain('ws://host')
})
afterEach(uninstall)

/** Subscribe, and return what comes. */
const listen = (options?: SubscribeOptions, of = brain) => {
  const changes: Change[] = []
  const off = of.subscribe('orders', change => changes.push(change), options)
  return { changes, off, ops: () => changes.map(({ op, key }) => (key ? `${op} ${key}` : op)) }
}

const open = async () => {
  await pass()
  Socket.last.hello()
}

/** End the connection, and let the client make another. */
const cut = async () => {
  Socket.last.end(1006)
  await pass(300)
  Socket.last.hello()
}

const insert = (sub: number, key: number, more: Frame = {}): Frame => ({
  sub, op: 'insert', channel: 'orders', key: [key], row: { id: key }, txid: `${++number}`, last: true, cursor: `c${key}`, ...more,
})

test('long numbers are always asked for as strings', async () => {
  brain.subscribe('orders', () => {}, { where: { id: { gt: 1 } }, key: 5, snapshot: true, limit: 10 })
  await open()
  const { id, ...frame } = Socket.last.of('subscribe')[0]!
  expect(frame).toEqual({
    type: 'subscribe', channel: 'orders', key: [5], where: { id: { gt: 1 } }, snapshot: true, limit: 10, numbers: 'string',
  })
})

test('a subscription that was live goes on at the latest place of the connection', async () => {
  listen()
  brain.subscribe('news', () => {})
  await open()
  Socket.last.grant(1, { cursor: 'c0' }, 0)
  Socket.last.grant(2, { cursor: 'c0' }, 1)
  Socket.last.deliver(insert(1, 5), { type: 'ping', cursor: 'p6' })
  await cut()
  expect(Socket.last.of('subscribe').map(frame => frame.after)).toEqual(['p6', 'p6'])
})

test('a change that came for one subscription alone before the cut is sent again to the other', async () => {
  listen()
  brain.subscribe('news', () => {})
  await open()
  Socket.last.grant(1, {}, 0)
  Socket.last.grant(2, {}, 1)
  Socket.last.deliver(insert(1, 5), insert(2, 5), insert(1, 6))
  await cut()
  // The change of c6 may have been for both.
  expect(Socket.last.of('subscribe').map(frame => frame.after)).toEqual(['c6', 'c5'])
})

test('a subscription that has not caught up goes on at its own place', async () => {
  listen()
  const late = listen({ from: 'c1', where: { id: { gt: 0 } } })
  await open()
  Socket.last.grant(1, {}, 0)
  Socket.last.grant(2, {}, 1)
  Socket.last.deliver(insert(2, 2), insert(1, 9))
  expect(brain.status.state).toBe('catching-up')
  await cut()
  expect(Socket.last.of('subscribe').map(frame => frame.after)).toEqual(['c9', 'c2'])
  Socket.last.grant(1, {}, 0)
  Socket.last.grant(2, {}, 1)
  Socket.last.deliver({ sub: 2, op: 'live', cursor: 'c9' }, { sub: 1, op: 'live', cursor: 'c9' }, insert(1, 10))
  expect(brain.status.state).toBe('live')
  expect(late.ops()).toEqual(['insert 2', 'live'])
  await cut()
  expect(Socket.last.of('subscribe').map(frame => frame.after)).toEqual(['c10', 'c9'])
})

test('a snapshot that is cut begins anew, after a reset', async () => {
  const { ops } = listen({ snapshot: true })
  await open()
  Socket.last.grant(1)
  Socket.last.deliver({ sub: 1, op: 'snapshot', channel: 'orders', rows: [{ key: [1], row: {} }] })
  await cut()
  expect(Socket.last.of('subscribe')).toMatchObject([{ snapshot: true }])
  expect(Socket.last.of('subscribe')[0]).not.toHaveProperty('after')
  Socket.last.grant(1)
  Socket.last.deliver(
    { sub: 1, op: 'snapshot', channel: 'orders', rows: [{ key: [1], row: {} }, { key: [2], row: {} }] },
    { sub: 1, op: 'snapshot-end', cursor: 'c3' },
  )
  expect(ops()).toEqual(['snapshot 1', 'reset', 'snapshot 1', 'snapshot 2', 'snapshot-end'])
  await cut()
  expect(Socket.last.of('subscribe')).toMatchObject([{ snapshot: true, after: 'c3' }])
})

test('between reset and the end of the rows there is no place', async () => {
  listen({ snapshot: true })
  await open()
  Socket.last.grant(1)
  Socket.last.deliver({ sub: 1, op: 'snapshot-end', cursor: 'c1' }, { sub: 1, op: 'live', cursor: 'c1' })
  Socket.last.deliver({ sub: 1, op: 'reset', reason: 'x', cursor: 'c2' }, { type: 'ping', cursor: 'c3' })
  expect(brain.status.state).toBe('catching-up')
  await cut()
  expect(Socket.last.of('subscribe')[0]).not.toHaveProperty('after')
})

test('a reset in place of a change is not taken for a place', async () => {
  listen()
  await open()
  Socket.last.grant(1)
  Socket.last.deliver(insert(1, 5), { sub: 1, op: 'reset', reason: 'too large' })
  await cut()
  expect(Socket.last.of('subscribe')).toMatchObject([{ after: 'c5' }])
})

test('a subscription goes on under the number that replaces its own', async () => {
  const { ops } = listen()
  await open()
  const { id } = Socket.last.of('subscribe')[0]!
  Socket.last.grant(1)
  Socket.last.deliver({ type: 'subscribed', id, sub: 9, replaces: 1, channel: 'orders', cursor: 'c1' })
  Socket.last.deliver({ sub: 9, op: 'reset', reason: 'rights', cursor: 'c1' }, insert(9, 4), insert(1, 5))
  expect(ops()).toEqual(['reset', 'insert 4'])
})

test('equal subscriptions share one at the server, and those that do not fit go by SSE', async () => {
  listen()
  listen()
  const rows = listen({ snapshot: true })
  const again = listen({ snapshot: true })
  await open()
  expect(Socket.last.of('subscribe').length).toBe(1)
  expect(Stream.all.length).toBe(1)
  expect(Stream.last.url.searchParams.get('snapshot')).toBe('true')
  Stream.last.hello()
  Stream.last.deliver({ sub: 1, op: 'snapshot', channel: 'orders', rows: [{ key: [1], row: {} }] }, { sub: 1, op: 'snapshot-end', cursor: 'c1' })
  await pass(1)
  const late = listen({ snapshot: true })
  for (const { ops } of [rows, again, late]) expect(ops()).toEqual(['snapshot 1', 'snapshot-end'])
})

test('filters that mean the same and get one number go on apart, each from its own place', async () => {
  const first = listen({ where: { id: 1 } })
  await open()
  Socket.last.grant(7)
  Socket.last.deliver(insert(7, 1, { cursor: 'c1' }))
  const second = listen({ where: { id: { eq: 1 } } })
  Socket.last.grant(7, { cursor: 'c1' })
  await pass()
  expect(Socket.last.of('unsubscribe')).toEqual([])
  expect(Stream.last.url.searchParams.get('after')).toBe('c1')
  Socket.last.deliver(insert(7, 1, { cursor: 'c2' }))
  expect([first.ops(), second.ops()]).toEqual([['insert 1'], ['insert 1']])
})

test('a subscription outlives its last user by a second, and is taken over without a new one', async () => {
  const first = listen()
  await open()
  Socket.last.grant(1)
  first.off()
  await pass(500)
  const second = listen()
  await pass(5000)
  expect(Socket.last.sent.map(frame => frame.type)).toEqual(['subscribe'])
  Socket.last.deliver(insert(1, 1))
  expect([first.ops(), second.ops()]).toEqual([[], ['insert 1']])
  second.off()
  await pass(1000)
  expect(brain.status.state).toBe('offline')
})

test('one that is given up before it was granted is ended once it is', async () => {
  const stay = listen({ where: { id: 1 } })
  const { off } = listen()
  await open()
  const { id } = Socket.last.of('subscribe')[1]!
  off()
  await pass(1000)
  Socket.last.deliver({ type: 'subscribed', id, sub: 3, channel: 'orders', cursor: 'c' })
  expect(Socket.last.of('unsubscribe')).toMatchObject([{ sub: 3 }])
  expect(stay.ops()).toEqual([])
})

test.each(['invalid_filter', 'not_allowed', 'malformed'])('%s is final for the subscription, and harms no other', async code => {
  const onError = vi.fn()
  listen({ where: { id: 1 }, onError })
  const good = listen()
  await open()
  const { id } = Socket.last.of('subscribe')[0]!
  Socket.last.deliver({ type: 'error', id, code, message: 'no', advice: 'Do.' })
  Socket.last.grant(2)
  expect(onError.mock.calls).toMatchObject([[{ message: 'no', code, advice: 'Do.' }]])
  Socket.last.deliver(insert(2, 1))
  expect(good.ops()).toEqual(['insert 1'])
  expect(brain.status.state).toBe('live')
  await cut()
  expect(Socket.last.of('subscribe').length).toBe(1)
})

test('a subscription that loses the right to read ends with an error', async () => {
  const onError = vi.fn()
  listen({ onError })
  await open()
  const { id } = Socket.last.of('subscribe')[0]!
  Socket.last.grant(1)
  Socket.last.deliver({ type: 'unsubscribed', id, sub: 1, code: 'not_allowed' })
  expect(onError.mock.calls).toMatchObject([[{ code: 'not_allowed' }]])
})

test.each(['unavailable', 'snapshot_unavailable'])('%s is tried again from the same place', async code => {
  listen({ from: 'c1' })
  await open()
  const { id } = Socket.last.of('subscribe')[0]!
  Socket.last.grant(1)
  Socket.last.deliver(insert(1, 2), { type: 'unsubscribed', id, sub: 1, code }, { type: 'error', id, code, message: 'later' })
  await pass(130)
  expect(Socket.last.of('subscribe').map(frame => frame.after)).toEqual(['c1', 'c2'])
  expect(brain.status.state).toBe('catching-up')
})

test('a stored cursor follows the changes that were handled, and never points into a transaction', async () => {
  const storage = memory()
  const named = createBrain('ws://host', { storage })
  const stored = () => storage.items['brain:http://host:worker:orders']
  let isBroken = false
  const take = () => {
    if (isBroken) throw new Error('not handled')
  }
  vi.stubGlobal('reportError', () => {})
  named.subscribe('orders', take, { name: 'worker' })
  await open()
  Socket.last.grant(1)
  Socket.last.deliver(insert(1, 1))
  expect(stored()).toBe('c1')
  Socket.last.deliver(insert(1, 2, { txid: 'a', last: undefined }), insert(1, 3))
  expect(stored()).toBe('c1')
  Socket.last.deliver({ op: 'commit', txid: 'a', cursor: 'c4' })
  expect(stored()).toBe('c4')
  isBroken = true
  Socket.last.deliver(insert(1, 5))
  expect(stored()).toBe('c4')
  isBroken = false
  Socket.last.deliver({ type: 'ping', cursor: 'c6' })
  expect(stored()).toBe('c6')

  createBrain('ws://host', { storage }).subscribe('orders', () => {}, { name: 'worker' })
  await open()
  expect(Socket.last.of('subscribe')).toMatchObject([{ after: 'c6' }])
})

test('each channel of a named subscription has a stored cursor of its own', async () => {
  const storage = memory()
  const begin = () => createBrain('ws://host', { storage }).subscribe(['orders', 'news'], () => {}, { name: 'worker' })
  begin()
  await open()
  Socket.last.grant(1, {}, 0)
  Socket.last.grant(2, {}, 1)
  Socket.last.deliver(insert(1, 1), insert(2, 2))
  begin()
  await open()
  expect(Socket.last.of('subscribe')).toMatchObject([{ channel: 'orders', after: 'c1' }, { channel: 'news', after: 'c2' }])
})

test('no cursor is stored between a reset and the end of the rows', async () => {
  const storage = memory()
  listen({ name: 'worker', snapshot: true }, createBrain('ws://host', { storage }))
  await open()
  Socket.last.grant(1)
  Socket.last.deliver({ sub: 1, op: 'reset', reason: '', cursor: 'c1' }, insert(1, 2, { cursor: undefined }))
  Socket.last.deliver({ type: 'ping', cursor: 'c3' })
  expect(storage.items).toEqual({})
  Socket.last.deliver({ sub: 1, op: 'snapshot-end', cursor: 'c4' })
  expect(Object.values(storage.items)).toEqual(['c4'])
})

test('a storage that throws harms nothing', async () => {
  const fail = () => {
    throw new DOMException('full', 'QuotaExceededError')
  }
  const storage = { getItem: fail, setItem: fail, removeItem: fail }
  const { ops } = listen({ name: 'worker' }, createBrain('ws://host', { storage }))
  await open()
  Socket.last.grant(1)
  Socket.last.deliver(insert(1, 1), insert(1, 2))
  expect(ops()).toEqual(['insert 1', 'insert 2'])
})

test('an iterator stores a cursor once the next change is asked for, and ends at once', async () => {
  const storage = memory()
  const changes = createBrain('ws://host', { storage }).changes('orders', { name: 'worker' })
  await open()
  Socket.last.grant(1)
  Socket.last.deliver(insert(1, 1), insert(1, 2))
  expect((await changes.next()).value.key).toEqual([1])
  expect(storage.items).toEqual({})
  expect((await changes.next()).value.key).toEqual([2])
  expect(Object.values(storage.items)).toEqual(['c1'])
  const waiting = changes.next()
  expect(await changes.return!()).toEqual({ value: undefined, done: true })
  expect(await waiting).toEqual({ value: undefined, done: true })
  await pass(1000)
  expect(Socket.last.isClosed).toBe(true)
})

test('an iterator whose subscription is refused throws why', async () => {
  const next = brain.changes('orders').next()
  await open()
  const { id } = Socket.last.of('subscribe')[0]!
  Socket.last.deliver({ type: 'error', id, code: 'not_allowed', message: 'no' })
  await expect(next).rejects.toMatchObject({ message: 'no', code: 'not_allowed' })
})

test('an iterator of a client that is closed ends', async () => {
  const next = brain.changes('orders').next()
  await open()
  brain.close()
  expect(await next).toEqual({ value: undefined, done: true })
  expect(Socket.last.isClosed).toBe(true)
})

test('until and presence wait for their answers, and are refused where there is no WebSocket', async () => {
  listen()
  await open()
  Socket.last.grant(1)
  const until = brain.until('851')
  Socket.last.deliver({ type: 'until', id: Socket.last.of('until')[0]!.id, txid: '851', cursor: 'u' })
  expect(await until).toBeUndefined()
  const rolledBack = brain.until('852')
  Socket.last.deliver({ type: 'error', id: Socket.last.of('until')[1]!.id, code: 'rolled_back', message: 'rolled back', advice: 'Do not wait.' })
  await expect(rolledBack).rejects.toMatchObject({ code: 'rolled_back', advice: 'Do not wait.' })
  // A connection that is lost meanwhile is waited for.
  const late = brain.until('853')
  Socket.last.end(1006)
  await pass(250)
  await open()
  await pass(250)
  Socket.last.deliver({ type: 'until', id: Socket.last.of('until')[0]!.id, txid: '853', cursor: 'v' })
  expect(await late).toBeUndefined()

  const streaming = createBrain('ws://host', { transport: 'sse' })
  streaming.subscribe('orders', () => {})
  await pass(1)
  const refused = { code: 'unavailable', message: expect.stringContaining('WebSocket') }
  await expect(streaming.until('1')).rejects.toMatchObject(refused)
  await expect(streaming.presence().set('away')).rejects.toMatchObject(refused)
})

test('a message is published by POST, with the token', async () => {
  const streaming = createBrain('ws://host/brain', { transport: 'sse', token: 'secret' })
  const published = streaming.publish('news', 'greeting', { text: 'hello' }, { to: 'ann' })
  await pass()
  Stream.last.write('{"txid":"851"}')
  Stream.last.end()
  expect(await published).toEqual({ txid: '851' })
  expect(Stream.last.url.href).toBe('http://host/brain/api/brain/publish')
  expect(Stream.last.options).toMatchObject({ method: 'POST', headers: { Authorization: 'Bearer secret', 'Content-Type': 'application/json' } })
  expect(JSON.parse(Stream.last.options.body as string)).toEqual({
    channel: 'news', type: 'greeting', data: { text: 'hello' }, to: 'ann',
  })
})

test('a refusal that no onError handles is reported, and closing the client is none', async () => {
  const reported = vi.fn()
  vi.stubGlobal('reportError', reported)
  listen()
  listen({ where: { id: 1 } })
  await open()
  const { id } = Socket.last.of('subscribe')[0]!
  Socket.last.deliver({ type: 'error', id, code: 'not_allowed', message: 'no' })
  brain.close()
  expect(reported.mock.calls).toMatchObject([[{ code: 'not_allowed' }]])
})

test('a number means on each connection what it was granted for there', async () => {
  const first = listen({ where: { id: 1 } })
  const second = listen({ where: { id: 2 } })
  await open()
  Socket.last.grant(1, {}, 0)
  Socket.last.grant(2, {}, 1)
  await cut()
  Socket.last.grant(1, {}, 1)
  first.off()
  await pass(1000)
  Socket.last.deliver(insert(1, 5))
  expect([first.ops(), second.ops()]).toEqual([[], ['insert 5']])
})
