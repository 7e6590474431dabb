import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { createBrain } from '../src/index.js'
import { install, jwt, memory, pass, Socket, Stream, uninstall } from './server.js'

beforeEach(install)
afterEach(uninstall)

const open = async () => {
  await pass()
  Socket.last.hello()
}

test('nothing connects before something is subscribed, and a path before the address is kept', async () => {
  const brain = createBrain('https://host/brain/')
  await pass(5000)
  expect(Socket.all).toEqual([])
  expect(brain.status).toEqual({ state: 'offline', why: 'not subscribed' })
  brain.subscribe('orders', () => {})
  await pass()
  expect(Socket.last.url).toBe('wss://host/brain/ws/v1')
  expect(Socket.last.protocols).toBe('brain.v1')
})

test('the connection ends a second after the last user', async () => {
  const brain = createBrain('ws://host')
  const off = brain.subscribe('orders', () => {})
  await open()
  Socket.last.grant(1)
  off()
  await pass(999)
  expect(Socket.last.isClosed).toBe(false)
  await pass(1)
  expect(Socket.last.isClosed).toBe(true)
  expect(brain.status.state).toBe('offline')
  await pass(60_000)
  expect(Socket.all.length).toBe(1)
})

test('attempts come at random within a time that doubles up to ten seconds, and begins anew once it was live', async () => {
  const brain = createBrain('ws://host', { transport: 'websocket' })
  brain.subscribe('orders', () => {})
  Socket.isRefusing = true
  await pass()
  const waits = []
  for (let count = Socket.all.length; waits.length < 8; count++) {
    let waited = 0
    while (Socket.all.length == count) await pass(++waited && 1)
    waits.push(waited)
  }
  // Math.random is 0.5 here; that errors count a millisecond later is allowed.
  const expected = [125, 250, 500, 1000, 2000, 4000, 5000, 5000]
  waits.forEach((waited, index) => expect(Math.abs(waited - expected[index]!)).toBeLessThanOrEqual(2))
  Socket.isRefusing = false
  await pass(6000)
  Socket.last.hello()
  Socket.last.grant(1)
  expect(brain.status.state).toBe('live')
  const count = Socket.all.length
  Socket.last.end(1006)
  await pass(130)
  expect(Socket.all.length).toBe(count + 1)
})

test.each([1013, 4029])('after code %i the next attempt waits two seconds more', async code => {
  const brain = createBrain('ws://host')
  brain.subscribe('orders', () => {})
  await open()
  Socket.last.end(code, 'later')
  await pass(2000)
  expect(Socket.all.length).toBe(1)
  expect(brain.status).toEqual({ state: 'offline', why: 'later', code })
  await pass(200)
  expect(Socket.all.length).toBe(2)
})

test('a connection that is silent is asked, and ended if it does not answer', async () => {
  createBrain('ws://host').subscribe('orders', () => {})
  await open()
  const socket = Socket.last
  await pass(45_000)
  expect(socket.of('ping').length).toBe(1)
  socket.deliver({ type: 'pong' })
  await pass(44_000)
  expect(socket.isClosed).toBe(false)
  await pass(4000)
  expect(socket.of('ping').length).toBe(2)
  expect(socket.isClosed).toBe(true)
  await pass(500)
  expect(Socket.last).not.toBe(socket)
})

test('a connection that does not open within ten seconds counts as failed', async () => {
  createBrain('ws://host', { transport: 'websocket' }).subscribe('orders', () => {})
  await pass(10_500)
  expect(Socket.all.length).toBe(2)
})

test.each(['online', 'pageshow', 'visibilitychange'])('%s makes a waiting client try at once, and asks an open connection', async type => {
  const events = new EventTarget()
  vi.stubGlobal('addEventListener', events.addEventListener.bind(events))
  createBrain('ws://host', { transport: 'websocket' }).subscribe('orders', () => {})
  Socket.isRefusing = true
  await pass(20_000)
  Socket.isRefusing = false
  const count = Socket.all.length
  events.dispatchEvent(new Event(type))
  await pass()
  expect(Socket.all.length).toBe(count + 1)
  const socket = Socket.last
  socket.hello()
  socket.sent = []
  events.dispatchEvent(new Event(type))
  expect(socket.sent).toEqual([{ type: 'ping' }])
  await pass(3000)
  expect(socket.isClosed).toBe(true)
})

test('a frame that waited in a dead connection is no answer to a ping', async () => {
  const events = new EventTarget()
  vi.stubGlobal('addEventListener', events.addEventListener.bind(events))
  createBrain('ws://host').subscribe('orders', () => {})
  await open()
  const socket = Socket.last
  events.dispatchEvent(new Event('online'))
  socket.deliver({ type: 'ping', cursor: 'c1' })
  await pass(3000)
  expect(socket.isClosed).toBe(true)
})

test('a connection that answers goes on, and is asked once however many subscriptions it has', async () => {
  const events = new EventTarget()
  vi.stubGlobal('addEventListener', events.addEventListener.bind(events))
  const brain = createBrain('ws://host')
  brain.subscribe(['orders', 'news'], () => {})
  await open()
  const socket = Socket.last
  socket.sent = []
  events.dispatchEvent(new Event('online'))
  expect(socket.sent).toEqual([{ type: 'ping' }])
  socket.deliver({ type: 'pong', cursor: 'c1' })
  await pass(10_000)
  expect(socket.isClosed).toBe(false)
})

test('nothing is sent on a connection that is closing', async () => {
  const brain = createBrain('ws://host')
  brain.subscribe('orders', () => {})
  await open()
  Socket.last.readyState = 2
  const { length } = Socket.last.sent
  brain.subscribe('news', () => {})
  expect(Socket.last.sent.length).toBe(length)
  Socket.last.end(1006)
  await pass(250)
  await open()
  expect(Socket.last.of('subscribe').map(({ channel }) => channel)).toEqual(['orders', 'news'])
})

test('a device that is offline says so', async () => {
  const events = new EventTarget()
  vi.stubGlobal('addEventListener', events.addEventListener.bind(events))
  vi.stubGlobal('navigator', { onLine: true })
  const brain = createBrain('ws://host')
  brain.subscribe('orders', () => {})
  await open()
  Socket.last.grant(1)
  vi.stubGlobal('navigator', { onLine: false })
  events.dispatchEvent(new Event('offline'))
  expect(brain.status).toEqual({ state: 'offline', why: 'no network' })
})

test('an error without a close event ends an attempt, and both together end one', async () => {
  createBrain('ws://host', { transport: 'websocket' }).subscribe('orders', () => {})
  await pass()
  Socket.last.onerror!()
  await pass(130)
  expect(Socket.all.length).toBe(2)
  Socket.last.onerror!()
  Socket.last.end(1006)
  await pass(251)
  expect(Socket.all.length).toBe(3)
})

test('a code from 4500 on closes the client for good, with why and advice', async () => {
  const brain = createBrain('ws://host')
  const errors: any[] = []
  brain.subscribe('orders', () => {}, { onError: error => errors.push(error) })
  await open()
  Socket.last.end(4503, 'the tokens were revoked')
  expect(brain.status).toMatchObject({ state: 'closed', why: 'the tokens were revoked', code: 4503 })
  expect(brain.status.advice).toBeTruthy()
  expect(errors).toMatchObject([{ message: 'the tokens were revoked', code: 4503 }])
  await pass(60_000)
  expect(Socket.all.length).toBe(1)
  brain.subscribe('orders', () => {}, { onError: error => errors.push(error) })
  expect(errors.length).toBe(2)
})

test('two failures in a row lead to SSE, which is remembered for a day once the WebSocket has failed beside it', async () => {
  const storage = memory()
  const brain = createBrain('https://host', { storage })
  brain.subscribe('orders', () => {})
  Socket.isRefusing = true
  await pass(1000)
  expect(Socket.all.length).toBe(2)
  expect(Stream.last.url.href).toBe('https://host/sse?channel=orders&numbers=string')
  Stream.last.hello('c1')
  await pass(1)
  expect(brain.status.state).toBe('live')
  await pass(1000)
  expect(Socket.all.length).toBe(3)
  createBrain('https://host', { storage }).subscribe('orders', () => {})
  await pass(1)
  expect(Socket.all.length).toBe(3)
  expect(Stream.all.length).toBe(2)
  vi.setSystemTime(Date.now() + 25 * 3600e3)
  createBrain('https://host', { storage }).subscribe('orders', () => {})
  await pass(1)
  expect(Socket.all.length).toBe(4)
})

test('a client whose WebSocket had been open goes over to SSE where it is, if WebSockets are blocked later', async () => {
  const brain = createBrain('ws://host')
  const changes: any[] = []
  brain.subscribe('orders', change => changes.push(change.key))
  await open()
  Socket.last.grant(7)
  Socket.last.deliver({ sub: 7, op: 'insert', channel: 'orders', key: [1], row: {}, cursor: 'c1', txid: '1', last: true })
  Socket.isRefusing = true
  Socket.last.end(1006)
  await pass(2000)
  expect(Stream.last.url.searchParams.get('after')).toBe('c1')
})

test('where both fail, the WebSocket is tried first again', async () => {
  createBrain('ws://host').subscribe('orders', () => {})
  Socket.isRefusing = true
  Stream.status = 0
  await pass(20_000)
  expect(Stream.all.length).toBeGreaterThan(1)
  Socket.isRefusing = false
  const refused = Socket.last
  while (Socket.last == refused) await pass(100)
  Socket.last.hello()
  Socket.last.grant(1)
  const count = Socket.all.length + Stream.all.length
  await pass(20_000)
  expect(Socket.all.length + Stream.all.length).toBe(count)
})

test('a client on SSE only because the server was down for a moment goes back to the WebSocket', async () => {
  const brain = createBrain('ws://host')
  brain.subscribe('orders', () => {})
  Socket.isRefusing = true
  await pass(1000)
  Socket.isRefusing = false
  Stream.last.hello('c1')
  await pass(1)
  Stream.last.deliver({ sub: 1, op: 'insert', channel: 'orders', key: [1], row: {}, cursor: 'c2' })
  await pass(1)
  Socket.last.hello()
  expect(Stream.last.isAborted).toBe(true)
  expect(Socket.last.of('subscribe')).toMatchObject([{ channel: 'orders', after: 'c2' }])
})

test('without a WebSocket, as in Node 20, SSE is used at once', async () => {
  vi.stubGlobal('WebSocket', undefined)
  createBrain('ws://host/brain').subscribe('orders', () => {})
  await pass(1)
  expect(Stream.last.url.href).toBe('http://host/brain/sse?channel=orders&numbers=string')
})

test('a token is asked for at each attempt, and travels as a subprotocol', async () => {
  let count = 0
  createBrain('ws://host', { token: async () => `t${++count}` }).subscribe('orders', () => {})
  await pass()
  expect(Socket.last.protocols).toEqual(['brain.v1', 'brain.token.t1'])
  Socket.last.end(1006)
  await pass(200)
  expect(Socket.last.protocols).toEqual(['brain.v1', 'brain.token.t2'])
})

test('a token is renewed on the open connection before it expires', async () => {
  const until = (seconds: number) => jwt({ sub: 'ann', exp: Date.now() / 1000 + seconds })
  const tokens = [until(40), until(1200)]
  const [, second] = tokens
  createBrain('ws://host', { token: () => tokens.shift() ?? null }).subscribe('orders', () => {})
  await pass()
  Socket.last.hello('ann')
  await pass(35_000)
  expect(Socket.last.of('auth')).toEqual([])
  await pass(1100)
  expect(Socket.last.of('auth')).toMatchObject([{ token: second }])
})

test('a token that expires in a century sets no timer off', async () => {
  const token = vi.fn(() => jwt({ exp: Date.now() / 1000 + 100 * 365 * 86400 }))
  createBrain('ws://host', { token }).subscribe('orders', () => {})
  await open()
  await pass(40_000)
  expect(token).toHaveBeenCalledTimes(1)
})

test('after 4401 a new token is tried in a moment, and the same one after a while', async () => {
  const tokens = ['a', 'b', 'b', 'b']
  createBrain('ws://host', { token: () => tokens.shift()! }).subscribe('orders', () => {})
  await open()
  Socket.last.end(4401, 'expired')
  await pass(250)
  await open()
  expect(Socket.last.protocols[1]).toBe('brain.token.b')
  Socket.last.end(4401, 'expired')
  await pass(500)
  await open()
  Socket.last.end(4401, 'expired')
  await pass(10)
  expect(Socket.all.length).toBe(3)
  await pass(1000)
  expect(Socket.all.length).toBe(4)
  expect(Stream.all).toEqual([])
})

test('a fixed token that has expired closes the client, with advice', async () => {
  const brain = createBrain('ws://host', { token: 'fixed' })
  brain.subscribe('orders', () => {})
  await open()
  Socket.last.end(4401, 'the token has expired')
  expect(brain.status).toMatchObject({ state: 'closed', code: 4401, why: 'the token has expired' })
  expect(brain.status.advice).toMatch('token')
})

test('a token that the server does not know is replaced once it is needed', async () => {
  const tokens = ['old', 'new']
  createBrain('ws://host', { token: () => tokens.shift()! }).subscribe('orders', () => {})
  await open()
  const { id } = Socket.last.of('subscribe')[0]!
  Socket.last.deliver({ type: 'error', id, code: 'not_allowed', message: 'not allowed to read orders' })
  await pass(250)
  expect(Socket.last.protocols[1]).toBe('brain.token.new')
})

test('a token callback that fails says why in the status, and is asked again', async () => {
  let isBroken = true
  const token = async () => {
    if (isBroken) throw new Error('signed out')
    return null
  }
  const brain = createBrain('ws://host', { token })
  brain.subscribe('orders', () => {})
  await pass()
  expect(brain.status).toMatchObject({ state: 'offline', why: 'Error: signed out' })
  isBroken = false
  await pass(10_000)
  expect(Socket.all.length).toBe(1)
  expect(Socket.last.protocols).toBe('brain.v1')
  expect(Stream.all).toEqual([])
})

test('an exception in a listener is reported, and harms no other', async () => {
  const reported: any[] = []
  vi.stubGlobal('reportError', (error: any) => reported.push(error.message))
  const brain = createBrain('ws://host')
  const keys: any[] = []
  const states: string[] = []
  brain.onStatus(() => {
    throw new Error('status')
  })
  brain.onStatus(({ state }) => states.push(state))
  brain.subscribe('orders', () => {
    throw new Error('listener')
  })
  brain.subscribe('orders', change => keys.push(change.key))
  await open()
  Socket.last.grant(1)
  Socket.last.deliver({ sub: 1, op: 'delete', channel: 'orders', key: [1], cursor: 'c1' })
  expect(keys).toEqual([[1]])
  expect(states).toEqual(['offline', 'connecting', 'catching-up', 'live'])
  expect(reported.filter(text => text == 'listener').length).toBe(1)
  expect(reported.filter(text => text == 'status').length).toBe(4)
})
