import { claims, type Frame, type Token, type Topic, type User } from './core.js'
import type { Status } from './types.js'

/**
 * What a tab needs of its client. This module is loaded only where tabs share a connection, so it
 * is built apart, and the names that both use are written out.
 */
export interface Client {
  attach(topic: Topic, user: User, after: string | undefined, rowsOnly: boolean | undefined): () => void
  call(frame: Frame): Promise<Frame>
  /** Connect by one's own means. */
  lead(): void
  /** Connect by the leading tab, whichever it is by then. */
  follow(): void
}

export interface Tabs {
  /** Join the tabs whose tokens are of the same user with the same rights; others never join. */
  join(token: Token): void
  /** Begin a subscription at the leading tab. */
  open(id: string, frame: Frame, receive: User): { send(frame: Frame): void; close(): void }
  /** Tell the tabs that follow this one, if any do. */
  tell(status: Status): void
  leave(): void
}

/** To whom, from whom, about which subscription. An empty `to` is the leading tab, `*` all others. */
type Message = [to: string, from: string, id: string, frame?: Frame]

/** What a client has for as long as it is one of a group of tabs. */
type Group = Omit<Tabs, 'join'>

/** One tab of `group` leads, and connects; the others follow, and get its frames. */
const joinGroup = (client: Client, group: string): Group => {
  const me = crypto.randomUUID?.() ?? `${Math.random()}`
  const channel = new BroadcastChannel(group)
  const left = new AbortController()
  const { signal } = left
  /** Of this tab, by id. */
  const followed = new Map<string, User>()
  /** How to end each subscription of a tab that follows this one, by tab and id. */
  const followers = new Map<string, () => void>()
  let isLeading = false
  let latest: Status | undefined

  const post = (...message: Message) => {
    if (!signal.aborted) channel.postMessage(message)
  }

  const request = (lock: string, then: () => Promise<void>) =>
    navigator.locks.request(lock, { signal }, then).catch(() => {
      // It has left before it got the lock.
    })

  /** Hold a lock until this tab leaves. */
  const hold = (lock: string, then?: () => void) =>
    request(lock, () => {
      then?.()
      return new Promise(resolve => signal.addEventListener('abort', () => resolve()))
    })

  const detach = (prefix: string) => {
    for (const [name, off] of followers)
      if (name.startsWith(prefix)) {
        followers.delete(name)
        off()
      }
  }

  const begin = (from: string, id: string, { type: _, id: __, after, rowsOnly, ...topic }: Frame) => {
    const send = (frame: Frame) => post(from, me, id, frame)
    // The lock of the other tab is granted when that tab is gone.
    if (!followers.has(from)) request(group + from, async () => detach(from))
    followers.set(from, () => {})
    send({ type: 'hello' })
    send({ type: 'status', status: latest })
    if (topic.snapshot && !after) send({ type: 'subscribed' })
    followers.set(`${from} ${id} `, client.attach(topic as Topic, send, after, rowsOnly))
  }

  const answer = async (from: string, id: string, frame: Frame) => {
    const reply = await client
      .call(frame)
      .catch(({ message, code, advice }) => ({ type: 'error', message, code, advice }))
    post(from, me, id, { ...reply, id: frame.id })
  }

  const serve = (from: string, id: string, frame?: Frame) => {
    const isBegun = frame?.type == 'subscribe'
    if (!frame || isBegun) detach(`${from} ${id} `)
    if (isBegun) begin(from, id, frame)
    else if (frame && frame.type != 'unsubscribe') void answer(from, id, frame)
  }

  channel.onmessage = ({ data: [to, from, id, frame] }: MessageEvent<Message>) => {
    if (to == '*') for (const receive of [...followed.values()]) receive(frame!)
    else if (to == me) followed.get(id)?.(frame!)
    else if (isLeading && !to) serve(from, id, frame)
  }

  hold(group + me)
  hold(group, () => {
    isLeading = true
    post('*', me, '', { type: 'closed', reason: 'another tab leads now' })
    client.lead()
  })

  return {
    open(id, frame, receive) {
      followed.set(id, receive)
      const send = (frame?: Frame) => post('', me, id, frame)
      send({ ...frame, type: 'subscribe' })
      return {
        send,
        close() {
          if (followed.get(id) == receive) followed.delete(id)
          send()
        },
      }
    },
    tell(status) {
      latest = status
      if (isLeading) post('*', me, '', { type: 'status', status })
    },
    leave() {
      for (const id of followed.keys()) post('', me, id)
      detach('')
      left.abort()
      channel.close()
    },
  }
}

/** All that a token says but when it was made and how long it holds; a token that says nothing is its own. */
const identityOf = (token: Token) => {
  const { exp: _, iat: __, nbf: ___, jti: ____, ...rights } = claims(token)
  const identity = JSON.stringify(rights)
  return identity == '{}' ? (token ?? '') : identity
}

/** Share the connection of one tab, where the browser can; `prefix` is of the server. */
export const createTabs = (client: Client, prefix: string, latest: Status): Tabs => {
  if (!globalThis.navigator?.locks || !globalThis.BroadcastChannel) throw new Error('tabs cannot share')
  let group: Group | undefined
  let name: string | undefined

  const leave = () => {
    group?.leave()
    group = name = undefined
  }
  // A page that is frozen cannot lead. It joins again when it goes on, by its attempt to connect.
  const rest = ({ persisted }: { persisted?: boolean }) => {
    if (!group || persisted === false) return
    leave()
    client.follow()
  }
  globalThis.addEventListener?.('pagehide', rest as EventListener)
  globalThis.document?.addEventListener('freeze', rest as EventListener)

  return {
    join(token) {
      const next = `${prefix}:${identityOf(token)}`
      if (next == name) return
      const isOther = group
      leave()
      name = next
      group = joinGroup(client, next)
      group.tell(latest)
      if (isOther) client.follow()
    },
    open: (...given) => group!.open(...given),
    tell(status) {
      latest = status
      group?.tell(status)
    },
    leave,
  }
}
