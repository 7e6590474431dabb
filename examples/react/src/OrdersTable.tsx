import { createBrain } from 'brain-realtime'
import { useRows } from 'brain-realtime/react'

const brain = createBrain('http://localhost:5221')

export function Orders() {
  const { rows, ready } = useRows(brain, 'orders', { where: { status: 'open' } })
  if (!ready) return <p>Loading…</p>
  return <table><tbody>{rows.map(({ id, status, total }) =>
    <tr key={id}><td>{id}</td><td>{status}</td><td>{total}</td></tr>)}</tbody></table>
}
