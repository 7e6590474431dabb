import { createCollection, type ChangeMessage } from '@tanstack/db'
import { beforeEach, expect, test } from 'vitest'
import { brainCollectionOptions } from '../../src/tanstack-db.js'
import { FakeBrain, type Order } from './brain.js'

let brain: FakeBrain

beforeEach(() => {
  brain = new FakeBrain()
})

const getKey = ({ id }: Order) => id

function openOrders() {
  const options = brainCollectionOptions({ brain: brain.client, channel: 'orders', where: { status: 'open' }, getKey })
  const collection = createCollection(options)
  const changes: string[][] = []
  const one = ({ type, key }: ChangeMessage<Order>) => `${type} ${key}`
  collection.subscribeChanges((batch) => changes.push(batch.map((change) => one(change as ChangeMessage<Order>))))
  return { collection, changes, orders: brain.opened[0]! }
}

test('a collection is ready with the rows of its query', async () => {
  const { collection, orders } = openOrders()
  expect(orders.query).toEqual({ where: { status: 'open' } })
  expect(collection.status).toBe('loading')

  orders.show({ id: 1, status: 'open' })
  await collection.stateWhenReady()
  expect(collection.get(1)).toMatchObject({ id: 1, status: 'open' })
})

test('a transaction arrives as one batch of its changes, and of no others', () => {
  const { changes, orders } = openOrders()
  orders.show({ id: 1, status: 'open' }, { id: 2, status: 'open' }, { id: 3, status: 'open' })
  changes.length = 0

  orders.show({ id: 1, status: 'open' }, { id: 2, status: 'late' }, { id: 4, status: 'open' })
  expect(changes.map((batch) => [...batch].sort())).toEqual([['delete 3', 'insert 4', 'update 2']])
})

test('a status that changes alone is no batch', () => {
  const { changes, orders } = openOrders()
  orders.show({ id: 1, status: 'open' })
  changes.length = 0
  orders.set({ ...orders.get(), status: { state: 'offline' } })

  expect(changes).toEqual([])
})

test('a row is replaced: a column that is no longer there goes', () => {
  const { collection, orders } = openOrders()
  orders.show({ id: 1, status: 'open', note: 'x' } as Order)
  orders.show({ id: 1, status: 'open' })

  expect(collection.get(1)).not.toHaveProperty('note')
})

test('an empty table makes a collection ready', async () => {
  const { collection, orders } = openOrders()
  orders.show()

  expect(await collection.toArrayWhenReady()).toEqual([])
})

test('a subscription that is refused is the error of the collection, and rows that come later mend it', () => {
  const { collection, orders } = openOrders()
  orders.fail(new Error('not allowed to read orders'))
  expect(collection.status).toBe('error')

  orders.show({ id: 1, status: 'open' })
  expect(collection.status).toBe('ready')
  expect(collection.size).toBe(1)
})

test('a collection that is cleaned up no longer follows the rows', async () => {
  const { collection, orders } = openOrders()
  orders.show({ id: 1, status: 'open' })
  await collection.cleanup()
  expect(orders.listeners.size).toBe(0)
})

test('an optimistic row stays until its transaction has arrived', async () => {
  const insert = async () => brain.client.until('851')
  const options = brainCollectionOptions({ brain: brain.client, channel: 'orders', getKey, onInsert: insert })
  const collection = createCollection(options)
  await Promise.resolve(collection.startSyncImmediate())
  brain.opened[0]!.show()

  const written = collection.insert({ id: 1, status: 'new' })
  expect(collection.get(1)).toMatchObject({ status: 'new' })
  brain.opened[0]!.show({ id: 1, status: 'stored' })
  brain.arrived('851')
  await written.isPersisted.promise

  expect(collection.get(1)).toMatchObject({ status: 'stored' })
})
