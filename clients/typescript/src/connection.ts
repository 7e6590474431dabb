import { json, type Open } from './core.js'

/** A WebSocket. The token travels as a subprotocol: addresses are kept in logs. */
export const openWebSocket: Open = ({ _url }, token, receive, end) => {
  const socket = new WebSocket(
    _url.replace('http', 'ws') + '/ws/v1',
    token ? ['brain.v1', 'brain.token.' + token] : 'brain.v1',
  )
  socket.onmessage = ({ data }) => receive(JSON.parse(data))
  socket.onclose = ({ code, reason }) => end(code, reason)
  // The close event of the same moment knows more; Node 20 has none after a refused connection.
  socket.onerror = () => setTimeout(end)
  return {
    // One that is closing has not said so yet, and takes nothing.
    _send: frame => socket.readyState == 1 && socket.send(json(frame)),
    _close: () => socket.close(),
  }
}
