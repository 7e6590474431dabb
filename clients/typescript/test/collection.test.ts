import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { createBrain, type Brain, type Collection } from '../src/index.js'
import { install, pass, Socket, uninstall, type Frame } from './server.js'

let brain: Brain
let orders: Collection
let listener: ReturnType<typeof vi.fn>
let off: () => void

beforeEach(async () => {
  install()
  brain = createBrain('ws://host')
  orders = brain.collection('orders')
  listener = vi.fn()
  off = orders.subscribe(listener as () => void)
  await pass()
  Socket.last.hello()
  Socket.last.grant(1)
})
afterEach(uninstall)

const page = (...ids: number[]): Frame => ({ sub: 1, op: 'snapshot', channel: 'orders', rows: ids.map(id => ({ key: [id], row: { id } })) })
const end = (cursor = 'c0'): Frame => ({ sub: 1, op: 'snapshot-end', cursor })
const live = (cursor = 'c0'): Frame => ({ sub: 1, op: 'live', cursor })
const change = (op: string, id: number, txid: string, more: Frame = {}): Frame => ({
  sub: 1, op, channel: 'orders', key: [id], txid, cursor: `c${id}`,
  ...(op == 'insert' || op == 'update' ? { row: { id } } : {}), ...more,
})
const ids = () => orders.get().rows.map(row => row.id)

test('rows show once all of them are there, with what changed between the pages', () => {
  Socket.last.deliver(page(1, 2), change('insert', 9, '1', { last: true, cursor: undefined }))
  Socket.last.deliver(change('delete', 1, '2', { last: true, cursor: undefined }), page(3))
  expect(orders.get()).toMatchObject({ rows: [], ready: false })
  Socket.last.deliver(end(), live())
  expect(ids()).toEqual([2, 9, 3])
  expect(orders.get()).toMatchObject({ ready: true, status: { state: 'live' } })
})

test('a transaction shows as a whole, with one notification', async () => {
  Socket.last.deliver(page(1), end(), live())
  await pass()
  listener.mockClear()
  Socket.last.deliver(change('insert', 2, 'a'), change('insert', 5, 'b', { last: true }), change('delete', 1, 'a'))
  expect(ids()).toEqual([1, 5])
  Socket.last.deliver(change('update', 3, 'a', { last: true }))
  expect(ids()).toEqual([5, 2, 3])
  await pass()
  expect(listener).toHaveBeenCalledTimes(1)
})

test('commit shows a transaction that has no last frame, and one of which nothing is kept is ignored', async () => {
  Socket.last.deliver(page(), end(), live())
  Socket.last.deliver(change('insert', 1, 'a'), { op: 'commit', txid: 'x', cursor: 'c2' })
  expect(ids()).toEqual([])
  Socket.last.deliver({ op: 'commit', txid: 'a', cursor: 'c3' })
  expect(ids()).toEqual([1])
  Socket.last.deliver(change('insert', 4, 'b'), { sub: 1, op: 'commit', txid: 'b', cursor: 'c5' })
  expect(ids()).toEqual([1, 4])
})

test('a commit for those that have caught up leaves others what they keep', () => {
  Socket.last.deliver(page(), end())
  Socket.last.deliver(change('insert', 1, 'a'), { op: 'commit', txid: 'a', cursor: 'c2' })
  expect(ids()).toEqual([])
  Socket.last.deliver({ sub: 1, op: 'commit', txid: 'a', cursor: 'c2' })
  expect(ids()).toEqual([1])
})

test('the state is the same object until something has changed, and unchanged rows keep their identity', () => {
  Socket.last.deliver(page(1, 2), end(), live())
  const state = orders.get()
  expect(orders.get()).toBe(state)
  Socket.last.deliver({ type: 'ping', cursor: 'p' })
  expect(orders.get()).toBe(state)
  Socket.last.deliver({ sub: 1, op: 'reset', reason: 'x' })
  expect(orders.get()).not.toBe(state)
  expect(orders.get().rows).toBe(state.rows)
  Socket.last.deliver(page(1, 2), end(), live())
  Socket.last.deliver(change('insert', 3, 'a', { last: true }))
  expect(orders.get()).not.toBe(state)
  expect(orders.get().rows[0]).toBe(state.rows[0])
})

test('after a reset the last rows stay until the new ones are complete, and equal rows keep their identity', async () => {
  Socket.last.deliver(page(1, 2), end(), live())
  const [, second] = orders.get().rows
  Socket.last.deliver(change('insert', 7, 'kept'))
  Socket.last.deliver({ sub: 1, op: 'reset', reason: 'x' }, page(2, 3))
  expect(ids()).toEqual([1, 2])
  expect(orders.get()).toMatchObject({ ready: true, status: { state: 'catching-up' } })
  Socket.last.deliver({ sub: 1, op: 'commit', txid: 'kept', cursor: 'c8' })
  Socket.last.deliver(end(), live())
  expect(ids()).toEqual([2, 3])
  expect(orders.get().rows[0]).toBe(second)
})

test('truncate and leave remove rows, and a key is found by its values', () => {
  Socket.last.deliver(page(1, 2), end(), live())
  expect(orders.byKey(2)).toEqual({ id: 2 })
  expect(orders.byKey([2])).toBe(orders.get().rows[1])
  expect([...orders.entries()]).toEqual([[[1], { id: 1 }], [[2], { id: 2 }]])
  Socket.last.deliver(change('leave', 2, 'a', { last: true }))
  expect(orders.byKey(2)).toBeUndefined()
  Socket.last.deliver({ sub: 1, op: 'truncate', channel: 'orders', txid: 'b', last: true, cursor: 'c9' })
  expect(ids()).toEqual([])
})

test('messages on the channel of a table are no rows', () => {
  Socket.last.deliver(page(1), end(), live())
  Socket.last.deliver({ sub: 1, op: 'message', channel: 'orders', type: 'note', data: { userId: 'ann' }, txid: 'a', last: true, cursor: 'c2' })
  expect(ids()).toEqual([1])
})

test('equal calls return the same collection, which shows its rows while it begins again', async () => {
  expect(brain.collection('orders')).toBe(orders)
  expect(brain.collection('orders', { where: { id: 1 } })).not.toBe(orders)
  expect(brain.collection('orders', { where: { id: 1 } })).toBe(brain.collection('orders', { where: { id: 1 } }))
  Socket.last.deliver(page(1), end(), live())
  off()
  await pass(500)
  off = orders.subscribe(listener as () => void)
  await pass(2000)
  expect(Socket.last.of('subscribe').length).toBe(1)
  off()
  await pass(1000)
  orders.subscribe(listener as () => void)
  await pass()
  expect(ids()).toEqual([1])
  Socket.last.hello()
  Socket.last.grant(1)
  Socket.last.deliver(page(4), end())
  expect(ids()).toEqual([4])
})

test('what changed without a listener shows once there is one again', () => {
  Socket.last.deliver(page(1), end(), live())
  expect(ids()).toEqual([1])
  off()
  Socket.last.deliver(change('insert', 2, 'a', { last: true }))
  orders.subscribe(listener as () => void)
  expect(Socket.all).toHaveLength(1)
  expect(ids()).toEqual([1, 2])
})

test('a collection that is refused says why', async () => {
  const { id } = Socket.last.of('subscribe')[0]!
  Socket.last.deliver({ type: 'error', id, code: 'not_allowed', message: 'no', advice: 'Ask.' })
  expect(orders.get()).toMatchObject({ ready: false, error: { message: 'no', code: 'not_allowed', advice: 'Ask.' } })
  await pass()
  expect(listener).toHaveBeenCalled()
})

test('a snapshot that is cut and begun anew swaps the rows when it is complete', async () => {
  Socket.last.deliver(page(1), end(), live(), { sub: 1, op: 'reset', reason: 'x' }, page(2))
  Socket.last.end(1006)
  await pass(300)
  Socket.last.hello()
  Socket.last.grant(1)
  Socket.last.deliver(page(3))
  expect(ids()).toEqual([1])
  Socket.last.deliver(end())
  expect(ids()).toEqual([3])
})

test('presence has the status of each user who is not offline', async () => {
  const presence = brain.presence()
  const changed = vi.fn()
  presence.subscribe(changed)
  Socket.last.grant(2)
  const said = (userId: string, status: string): Frame => ({
    sub: 2, op: 'message', channel: 'presence', type: 'user_presence', data: { userId, status }, txid: userId, last: true, cursor: 'c',
  })
  Socket.last.deliver({ sub: 2, op: 'snapshot', channel: 'presence', rows: [{ key: ['ann'], row: { userId: 'ann', status: 'online' } }] })
  expect(presence.get()).toEqual({ users: {}, ready: false })
  Socket.last.deliver({ sub: 2, op: 'snapshot-end', cursor: 'c' }, { sub: 2, op: 'live', cursor: 'c' })
  expect(presence.get()).toEqual({ users: { ann: 'online' }, ready: true })
  expect(presence.get()).toBe(presence.get())
  Socket.last.deliver(said('bob', 'busy'), said('ann', 'offline'))
  expect(presence.get().users).toEqual({ bob: 'busy' })
  const set = presence.set('away')
  Socket.last.deliver({ type: 'presence', id: Socket.last.of('presence')[0]!.id, status: 'away' })
  await set
  await pass()
  expect(changed).toHaveBeenCalled()
})

test('two collections of the same rows, of which one is older, both follow them', async () => {
  Socket.last.deliver(page(1), end(), live())
  off()
  await pass(1000)
  const newer = brain.collection('orders')
  expect(newer).not.toBe(orders)
  newer.subscribe(() => {})
  orders.subscribe(() => {})
  await pass()
  Socket.last.hello()
  Socket.last.grant(1)
  Socket.last.deliver(page(2), end(), live(), change('insert', 3, 'a', { last: true }))
  expect(ids()).toEqual([2, 3])
  expect(newer.get().rows).toEqual(orders.get().rows)
})
