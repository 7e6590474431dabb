import { createCollection } from '@tanstack/db'
import { createBrain } from 'brain-realtime'
import { brainCollectionOptions } from 'brain-realtime/tanstack-db'

const brain = createBrain(process.argv[2])
const orders = createCollection(
  brainCollectionOptions({ brain, channel: 'orders', where: { status: 'open' }, getKey: ({ id }) => id }),
)
const subscription = orders.subscribeChanges(() => {
  const rows = orders.toArray.map(({ id, status }) => ({ id, status }))
  if (rows.length > 0) console.log(JSON.stringify(rows))
  if (rows.length === 2) {
    subscription.unsubscribe()
    orders.cleanup()
    brain.close()
  }
})
