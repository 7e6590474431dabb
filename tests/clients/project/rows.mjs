import { createBrain } from 'brain-realtime'

const brain = createBrain(process.argv[2])
const orders = brain.collection('orders', { where: { status: 'open' } })
const unsubscribe = orders.subscribe(() => {
  const { rows, ready, error } = orders.get()
  if (error) throw error
  if (ready) console.log(JSON.stringify(rows))
  if (rows.length === 2) {
    unsubscribe()
    brain.close()
  }
})
