import { json, type Open } from './core.js'

/** A WebSocket. The token travels as a subprotocol: addresses are kept in logs. */
export const openWebSocket: Open = ({ _url }, token, receive, end) => {
  const socket = new WebSocket(
    _url.replace('http', 'ws') + '/ws/v1',
    ['brain.v1'].concat(token ? 'brain.token.' + token : []),
  )
  socket.onmessage = ({ data }) => receive(JSON.parse(data))
  socket.onclose = ({ code, reason }) => end(code, reason)
  // The close event of the same moment knows more; Node 20 has none after a refused connection.
  socket.onerror = () => setTimeout(end)
  return {
    _send: frame => socket.send(json(frame)),
    _close: () => socket.close(),
  }
}
