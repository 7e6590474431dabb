import type { Open } from './core.js'

/** One subscription as server-sent events, read by fetch, which can send a token. */
export const openStream: Open = (core, token, receive, end, { _topic, _place }) => {
  const abort = new AbortController()
  const query = new URLSearchParams()
  for (const [name, value] of Object.entries({ ..._topic, numbers: 'string', after: _place }))
    if (value) query.set(name, typeof value == 'object' ? JSON.stringify(value) : `${value}`)
  const read = async () => {
    const response = await fetch(`${core._url}/sse?${query}`, {
      headers: token ? { Authorization: 'Bearer ' + token } : {},
      cache: 'no-store',
      signal: abort.signal,
    })
    if (!response.ok) {
      const text = await response.text()
      let why = text
      try {
        why = JSON.parse(text).error
      } catch {}
      return end(response.status, why)
    }
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
  read().catch(error => end(0, error.message))
  return { _close: () => abort.abort() }
}
