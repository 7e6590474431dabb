// A server of brain.v1 whose frames a test writes, in place of WebSocket and fetch.
import { vi } from 'vitest'

export interface Frame {
  [name: string]: any
}

/** The client's end of a connection, as the test sees it. */
export class Socket {
  static all: Socket[] = []
  /** What happens to the next attempts to connect. */
  static isRefusing = false
  onmessage?: (event: { data: string }) => void
  onclose?: (event: { code: number; reason: string }) => void
  onerror?: () => void
  sent: Frame[] = []
  isClosed = false
  /** Open, or 2: it is closing, and its end has not come yet. */
  readyState = 1

  constructor(
    readonly url: string,
    readonly protocols: string | string[],
  ) {
    Socket.all.push(this)
    if (Socket.isRefusing)
      queueMicrotask(() => {
        this.onerror?.()
        this.onclose?.({ code: 1006, reason: '' })
      })
  }
  send(text: string) {
    this.sent.push(JSON.parse(text))
  }
  close() {
    this.isClosed = true
  }

  static get last() {
    return Socket.all.at(-1)!
  }
  deliver(...frames: Frame[]) {
    for (const frame of frames) this.onmessage?.({ data: JSON.stringify(frame) })
  }
  hello(user: string | null = null) {
    this.deliver({ type: 'hello', protocol: 'brain.v1', user, cursor: 'h' })
  }
  end(code: number, reason = '') {
    this.onclose?.({ code, reason })
  }
  of(type: string) {
    return this.sent.filter(frame => frame.type == type)
  }
  /** Grant what was asked for last, or what was asked for `index`-th. */
  grant(sub: number, more: Frame = {}, index = -1) {
    const { id, channel, after, snapshot } = this.of('subscribe').at(index)!
    const cursor = snapshot && !after ? undefined : (after ?? 'c0')
    this.deliver({ type: 'subscribed', id, sub, channel, cursor, ...more })
  }
}

/** An answer to fetch that the test writes. */
export class Stream {
  static all: Stream[] = []
  /** The status of the next answers; 0: the network fails. */
  static status = 200
  readonly url: URL
  isAborted = false
  #controller!: ReadableStreamDefaultController<Uint8Array>
  readonly response: Promise<Response>

  constructor(
    address: string,
    readonly options: RequestInit = {},
  ) {
    this.url = new URL(address)
    Stream.all.push(this)
    const body = new ReadableStream<Uint8Array>({ start: controller => void (this.#controller = controller) })
    options.signal?.addEventListener('abort', () => (this.isAborted = true))
    if (Stream.status == 0) this.response = Promise.reject(new TypeError('fetch failed'))
    else if (Stream.status != 200)
      this.response = Promise.resolve(new Response('{"error":"no"}', { status: Stream.status }))
    else this.response = Promise.resolve(new Response(body))
  }
  static get last() {
    return Stream.all.at(-1)!
  }
  write(text: string | Uint8Array) {
    this.#controller.enqueue(typeof text == 'string' ? new TextEncoder().encode(text) : text)
  }
  deliver(...frames: Frame[]) {
    for (const frame of frames) this.write(`data: ${JSON.stringify(frame)}\n\n`)
  }
  hello(cursor?: string) {
    this.deliver({ type: 'hello', cursor: 'h' }, { type: 'subscribed', id: 'sse', sub: 1, cursor })
  }
  end() {
    this.#controller.close()
  }
}

/** Have the client find these in place of the network, and a clock that the test moves. */
export const install = () => {
  Socket.all = []
  Socket.isRefusing = false
  Stream.all = []
  Stream.status = 200
  vi.useFakeTimers()
  vi.stubGlobal('WebSocket', Socket)
  vi.stubGlobal('fetch', (address: string, options: RequestInit) => new Stream(address, options).response)
  vi.spyOn(Math, 'random').mockReturnValue(0.5)
}

export const uninstall = () => {
  vi.useRealTimers()
  vi.unstubAllGlobals()
  vi.restoreAllMocks()
}

/** Let what is due within these milliseconds happen. */
export const pass = (milliseconds = 0) => vi.advanceTimersByTimeAsync(milliseconds)

export const memory = (items: Record<string, string> = {}) => ({
  items,
  getItem: (name: string) => items[name] ?? null,
  setItem: (name: string, value: string) => void (items[name] = value),
  removeItem: (name: string) => void delete items[name],
})

const encoded = (part: object) => btoa(JSON.stringify(part))
export const jwt = (claims: object) => `${encoded({})}.${encoded(claims)}.signature`
