import type { Core, Frame, Open } from './core.js'
import type { Status } from './types.js'

export interface Tabs {
  _open: Open
  /** Tell the tabs that follow this one, if any do. */
  _tell(status: Status): void
  _leave(): void
}

/** To whom, from whom, about which subscription. An empty `to` is the leading tab, `*` all others. */
type Message = [to: string, from: string, id: string, frame?: Frame]

/** One tab of `group` leads, and connects; the others follow, and get its frames. */
export const joinTabs = (core: Core, group: string): Tabs => {
  const me = `${Math.random()}`
  const channel = new BroadcastChannel(group)
  const left = new AbortController()
  const { signal } = left
  const followed = new Map<string, (frame: Frame) => void>()
  const followers = new Map<string, () => void>()
  let isLeading = false

  const post = (...message: Message) => isLeft() || channel.postMessage(message)
  const isLeft = () => signal.aborted

  /** Hold a lock until this tab leaves. */
  const hold = (lock: string, then?: () => void) =>
    navigator.locks
      .request(lock, { signal }, () => {
        then?.()
        return new Promise<void>(resolve => signal.addEventListener('abort', () => resolve()))
      })
      .catch(() => {})

  const detach = (prefix: string) => {
    for (const [name, off] of followers)
      if (name.startsWith(prefix)) {
        followers.delete(name)
        off()
      }
  }

  const serve = (from: string, id: string, frame?: Frame) => {
    const send = (frame: Frame) => post(from, me, id, frame)
    const { type, after, ...topic } = frame ?? {}
    if (!frame || type == 'subscribe') detach(from + id)
    if (type == 'subscribe') {
      // It is granted when the other tab is gone.
      if (![...followers.keys()].some(name => name.startsWith(from)))
        navigator.locks.request(group + from, { signal }, () => detach(from)).catch(() => {})
      send({ type: 'hello' })
      if (topic.snapshot && !after) send({ type: 'subscribed' })
      followers.set(`${from}${id} `, core._attach(topic as any, send, after, !!after)[1])
    } else if (frame && type != 'unsubscribe')
      core._main._call(frame).then(
        answer => send({ ...answer, id: frame.id }),
        ({ message, code, advice }) => send({ type: 'error', id: frame.id, message, code, advice }),
      )
  }

  channel.onmessage = ({ data: [to, from, id, frame] }: MessageEvent<Message>) => {
    if (to == '*') for (const receive of followed.values()) receive(frame!)
    else if (to == me) followed.get(id)?.(frame!)
    else if (isLeading && !to) serve(from, id, frame)
  }

  hold(group + me)
  hold(group, () => {
    isLeading = true
    post('*', me, '', { type: 'closed', reason: 'another tab leads now' })
    core._go()
  })

  return {
    _open(_, __, receive, ___, { _id, _topic, _place, _rowsOnly }) {
      const send = (frame?: Frame) => post('', me, _id, frame)
      followed.set(_id, receive)
      send({ type: 'subscribe', ..._topic, after: _rowsOnly ? undefined : _place })
      return {
        _send: send,
        _close() {
          followed.delete(_id)
          send()
        },
      }
    },
    _tell: status => isLeading && post('*', me, '', { type: 'status', status }),
    _leave() {
      for (const off of followers.values()) off()
      left.abort()
      channel.close()
    },
  }
}
