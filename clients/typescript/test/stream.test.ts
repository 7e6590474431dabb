import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { createBrain, type Brain, type BrainError } from '../src/index.js'
import { install, pass, Stream, uninstall } from './server.js'

let brain: Brain
let keys: unknown[]
let errors: BrainError[]

beforeEach(async () => {
  install()
  brain = createBrain('https://host/brain', { transport: 'sse', token: () => 'secret' })
  keys = []
  errors = []
  brain.subscribe('orders', change => keys.push(change.key?.[0] ?? change.op), {
    where: { id: { gt: 1 } }, onError: error => errors.push(error),
  })
  await pass(1)
})
afterEach(uninstall)

const insert = (key: unknown, cursor = `c${key}`) =>
  `id: ${cursor}\ndata: ${JSON.stringify({ sub: 1, op: 'insert', channel: 'orders', key: [key], row: {}, cursor })}\n\n`

test('a stream is asked for with the token in a header', () => {
  const { pathname, searchParams } = Stream.last.url
  expect(pathname).toBe('/brain/sse')
  expect(Object.fromEntries(searchParams)).toEqual({ channel: 'orders', where: '{"id":{"gt":1}}', numbers: 'string' })
  expect(Stream.last.options.headers).toMatchObject({ Authorization: 'Bearer secret' })
})

test('events are read however they are cut, with any end of line, and comments are passed over', async () => {
  Stream.last.hello('c0')
  const text = `: comment\n\nretry: 2000\n\n${insert('é')}${insert(2).replaceAll('\n', '\r\n')}${insert(3).replaceAll('\n', '\r')}`
  for (const byte of new TextEncoder().encode(text)) Stream.last.write(Uint8Array.of(byte))
  await pass(1)
  expect(keys).toEqual(['é', 2, 3])
})

test('a stream that ends goes on after the last place, that of a ping included', async () => {
  Stream.last.hello('c0')
  Stream.last.write(insert(2))
  Stream.last.deliver({ type: 'ping', cursor: 'p3' })
  await pass(1)
  Stream.last.end()
  await pass(200)
  expect(Stream.all.length).toBe(2)
  expect(Stream.last.url.searchParams.get('after')).toBe('p3')
})

test('a stream with no sign of life is made again, and comments are signs of life', async () => {
  Stream.last.hello('c0')
  await pass(40_000)
  Stream.last.write(': \n\n')
  await pass(40_000)
  expect(Stream.last.isAborted).toBe(false)
  await pass(5500)
  expect(Stream.all.length).toBe(2)
  expect(Stream.all[0]!.isAborted).toBe(true)
})

test('a device that wakes from sleep makes its streams again', async () => {
  const events = new EventTarget()
  vi.stubGlobal('addEventListener', events.addEventListener.bind(events))
  createBrain('https://host', { transport: 'sse' }).subscribe('orders', () => {})
  await pass(1)
  Stream.last.hello('c0')
  await pass(1)
  const count = Stream.all.length
  events.dispatchEvent(new Event('visibilitychange'))
  await pass(300)
  expect(Stream.all.length).toBe(count)
  vi.setSystemTime(Date.now() + 3600e3)
  events.dispatchEvent(new Event('visibilitychange'))
  await pass(300)
  expect(Stream.all.length).toBe(count + 1)
})

test('closed says with which code a stream ends', async () => {
  Stream.last.hello('c0')
  Stream.last.deliver({ type: 'closed', code: 1012, reason: 'Brain stops or restarts' })
  await pass(1)
  expect(brain.status).toEqual({ state: 'offline', why: 'Brain stops or restarts', code: 1012 })
  await pass(300)
  expect(Stream.all.length).toBe(2)
})

test('a subscription whose rights are lost ends alone', async () => {
  brain.subscribe('news', () => {})
  await pass(1)
  Stream.all[0]!.hello('c0')
  Stream.all[1]!.hello('c0')
  Stream.all[0]!.deliver({ type: 'closed', code: 4504, reason: 'no right' })
  await pass(1)
  expect(errors).toMatchObject([{ code: 4504, message: 'no right' }])
  expect(brain.status.state).toBe('live')
})

test('the tokens of a user that are revoked close the client', async () => {
  Stream.last.hello('c0')
  Stream.last.deliver({ type: 'closed', code: 4503, reason: 'revoked' })
  await pass(1)
  expect(brain.status).toMatchObject({ state: 'closed', code: 4503 })
})

test('a stream whose token expires goes on with another one in a moment', async () => {
  Stream.last.hello('c0')
  Stream.last.deliver({ type: 'closed', code: 4401, reason: 'expired' })
  await pass(250)
  expect(Stream.all.length).toBe(2)
  expect(Stream.last.url.searchParams.get('after')).toBe('c0')
})

test.each([400, 403])('status %i is final for the subscription', async status => {
  Stream.status = status
  brain.subscribe('news', () => {}, { onError: error => errors.push(error) })
  await pass(1)
  expect(errors).toMatchObject([{ code: status, message: 'no' }])
  await pass(20_000)
  expect(Stream.all.filter(({ url }) => url.searchParams.get('channel') == 'news').length).toBe(1)
})

test('a server that has no room is asked again, two seconds later', async () => {
  Stream.status = 503
  brain.subscribe('news', () => {})
  const count = () => Stream.all.filter(({ url }) => url.searchParams.get('channel') == 'news').length
  await pass(2000)
  expect(count()).toBe(1)
  await pass(200)
  expect(count()).toBe(2)
})
