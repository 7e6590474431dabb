import { json, optional, type Open, type Token } from './core.js'
import { BrainError } from './types.js'

/** Ask Brain over HTTP. An answer that is an error is thrown. */
export const request = async (address: string, token: Token, options: RequestInit) => {
  const headers: HeadersInit = { 'Content-Type': 'application/json' }
  if (token) headers.Authorization = 'Bearer ' + token
  const response = await fetch(address, { ...options, headers }).catch(({ message }) => {
    throw new BrainError(message, 'unavailable')
  })
  if (response.ok) return response
  const text = await response.text()
  // That of a proxy is no JSON.
  throw new BrainError(optional(() => JSON.parse(text).error) ?? text, response.status)
}

/** One subscription as server-sent events, read by fetch, which can send a token. */
export const openStream: Open = ({ _url }, token, receive, end, { _topic, _place }) => {
  const abort = new AbortController()
  const query = new URLSearchParams()
  for (const [name, value] of Object.entries({ ..._topic, numbers: 'string', after: _place }))
    if (value) query.set(name, value instanceof Object ? json(value) : (value as string))
  const read = async () => {
    const response = await request(`${_url}/sse?${query}`, token, { cache: 'no-store', signal: abort.signal })
    const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader()
    let rest = ''
    for (;;) {
      const { done, value } = await reader.read()
      if (done) return end()
      // Comments are signs of life, too.
      receive()
      const lines = (rest + value).split(/\r\n?|\n/)
      rest = lines.pop()!
      for (const line of lines) if (line.startsWith('data:')) receive(JSON.parse(line.slice(5)))
    }
  }
  read().catch(({ code, message }) => end(+code || 0, message))
  return { _close: () => abort.abort() }
}
