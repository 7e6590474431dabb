// @vitest-environment happy-dom
import { act, StrictMode, type ReactNode } from 'react'
import { createRoot, hydrateRoot, type Root } from 'react-dom/client'
import { renderToString } from 'react-dom/server'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { usePresence, useRows, useStatus } from '../../src/react.js'
import { FakeBrain } from './brain.js'

let brain: FakeBrain
let page: HTMLElement
let root: Root

beforeEach(() => {
  Object.assign(globalThis, { IS_REACT_ACT_ENVIRONMENT: true })
  brain = new FakeBrain()
  page = document.createElement('main')
  root = createRoot(page)
})
afterEach(() => act(() => root.unmount()))

const render = (what: ReactNode) => act(() => root.render(what))

let renders = 0

function Orders({ status = 'open' }) {
  renders += 1
  const { rows, ready, error } = useRows(brain.client, 'orders', { where: { status } })
  if (error) return error.message
  return ready ? rows.map(({ id }) => id).join() : 'loading'
}

function People() {
  const { users, ready, set } = usePresence(brain.client)
  return <button onClick={() => void set('away')}>{ready ? Object.keys(users).join() : 'loading'}</button>
}

function Connection() {
  return useStatus(brain.client).state
}

test('a component shows the rows and each change of them', async () => {
  await render(<Orders />)
  expect(page.textContent).toBe('loading')

  await act(() => brain.opened[0]!.show({ id: 1, status: 'open' }))
  expect(page.textContent).toBe('1')

  await act(() => brain.opened[0]!.show({ id: 1, status: 'open' }, { id: 2, status: 'open' }))
  expect(page.textContent).toBe('1,2')
})

test('a query that is written in the component does not subscribe again in each render', async () => {
  await render(<Orders />)
  await render(<Orders />)
  await act(() => brain.opened[0]!.show({ id: 1, status: 'open' }))

  expect(brain.opened).toHaveLength(1)
  expect(brain.opened[0]!.subscriptions).toBe(1)
})

test('another query is another subscription, and the former one ends', async () => {
  await render(<Orders status="open" />)
  await render(<Orders status="paid" />)

  expect(brain.opened.map(({ query }) => query)).toEqual([
    { where: { status: 'open' } },
    { where: { status: 'paid' } },
  ])
  expect(brain.opened.map(({ listeners }) => listeners.size)).toEqual([0, 1])
})

test('a component in StrictMode, which is mounted twice, follows one collection and leaves it once', async () => {
  await render(<StrictMode><Orders /></StrictMode>)
  await act(() => brain.opened[0]!.show({ id: 1, status: 'open' }))
  expect(page.textContent).toBe('1')
  expect(brain.opened[0]!.listeners.size).toBe(1)

  await render(null)
  expect(brain.opened[0]!.listeners.size).toBe(0)
})

test('a component is not rendered while nothing changes', async () => {
  await render(<Orders />)
  const before = renders
  await act(() => brain.opened[0]!.listeners.forEach((listener) => listener()))

  expect(renders).toBe(before)
})

test('a component shows the error of a subscription that is refused', async () => {
  await render(<Orders />)
  await act(() => brain.opened[0]!.fail(new Error('not allowed to read orders')))

  expect(page.textContent).toBe('not allowed to read orders')
})

test('a server renders without a connection, and the browser goes on from what it rendered', async () => {
  const errors: unknown[] = []
  brain.orders({ where: { status: 'open' } }).show({ id: 1, status: 'open' })
  const page = document.createElement('main')
  page.innerHTML = renderToString(<Orders />)
  expect(page.textContent).toBe('loading')
  expect(brain.opened[0]!.subscriptions).toBe(0)

  const hydrated = await act(() => hydrateRoot(page, <Orders />, { onRecoverableError: (error) => errors.push(error) }))
  expect(page.textContent).toBe('1')
  expect(errors).toEqual([])
  await act(() => hydrated.unmount())
})

test('a component shows who is online, and sets its own status', async () => {
  await render(<People />)
  expect(page.textContent).toBe('loading')
  await act(() => brain.users.set({ users: { ann: 'online' }, ready: true }))
  expect(page.textContent).toBe('ann')

  await act(() => page.querySelector('button')!.click())
  expect(brain.stated).toEqual(['away'])
})

test('a component shows the status of the connection', async () => {
  await render(<Connection />)
  expect(page.textContent).toBe('connecting')
  await act(() => brain.connection.set({ state: 'live' }))

  expect(page.textContent).toBe('live')
})
