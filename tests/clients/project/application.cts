import { createBrain, type Brain, type Change } from 'brain-realtime'
import { usePresence, useRows, useStatus } from 'brain-realtime/react'
import { brainCollectionOptions } from 'brain-realtime/tanstack-db'
import { useRows as useRowsInVue } from 'brain-realtime/vue'

interface Order {
  id: number
  status: 'open' | 'paid'
}

interface Tables {
  orders: Order
}

const brain: Brain<Tables> = createBrain<Tables>('https://brain.example.com', { token: async () => 'a token' })

export function inReact(): Order['status'][] {
  const { rows } = useRows(brain, 'orders', { where: { status: 'open' } })
  const { users } = usePresence(brain)
  const { state } = useStatus(brain)
  return state === 'live' && users['ann'] ? rows.map(({ status }) => status) : []
}

export const inVue = (): readonly Order[] => useRowsInVue(brain, 'orders').value.rows

export const inTanStack: number = brainCollectionOptions({
  brain,
  channel: 'orders',
  where: { status: 'open' },
  getKey: ({ id }) => id,
}).getKey({ id: 1, status: 'open' })

export const stop = brain.subscribe('orders', (change: Change<Order>) => change.row?.status)

// @ts-expect-error: there is no such channel
brain.collection('customers')

// @ts-expect-error: no order has this status
useRows(brain, 'orders', { where: { status: 'lost' } })
