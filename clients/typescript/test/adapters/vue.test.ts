// @vitest-environment happy-dom
import { beforeEach, expect, test } from 'vitest'
import { createApp, createSSRApp, defineComponent, effectScope, h, nextTick, ref } from 'vue'
import { renderToString } from 'vue/server-renderer'
import { usePresence, useRows, useStatus } from '../../src/vue.js'
import { FakeBrain } from './brain.js'

let brain: FakeBrain

beforeEach(() => {
  brain = new FakeBrain()
})

const Orders = defineComponent(() => {
  const state = useRows(brain.client, 'orders', { where: { status: 'open' } })
  return () => h('p', state.value.ready ? state.value.rows.map(({ id }) => id).join() : 'loading')
})

test('a component shows the rows from its mount to its end', async () => {
  const page = document.createElement('main')
  const app = createApp(Orders)
  app.mount(page)
  expect(page.textContent).toBe('loading')

  brain.opened[0]!.show({ id: 1, status: 'open' })
  await nextTick()
  expect(page.textContent).toBe('1')

  app.unmount()
  expect(brain.opened[0]!.listeners.size).toBe(0)
})

test('a server renders without a connection', async () => {
  expect(await renderToString(createSSRApp(Orders))).toBe('<p>loading</p>')
  expect(brain.opened).toEqual([])
})

test('rows outside of a component end with their scope', () => {
  const scope = effectScope()
  const state = scope.run(() => useRows(brain.client, 'orders'))!
  brain.opened[0]!.show({ id: 1, status: 'open' })
  expect(state.value.rows).toEqual([{ id: 1, status: 'open' }])

  scope.stop()
  expect(brain.opened[0]!.listeners.size).toBe(0)
})

test('a query that changes is another subscription, an equal one is not', async () => {
  const scope = effectScope()
  const status = ref('open')
  const renders = ref(0)
  const query = () => (renders.value, { where: { status: status.value } })
  const state = scope.run(() => useRows(brain.client, 'orders', query))!
  brain.opened[0]!.show({ id: 1, status: 'open' })

  renders.value += 1
  await nextTick()
  expect(brain.opened[0]!.subscriptions).toBe(1)

  status.value = 'paid'
  await nextTick()
  expect(brain.opened.map(({ listeners }) => listeners.size)).toEqual([0, 1])
  expect(state.value.ready).toBe(false)
  scope.stop()
})

test('presence shows who is online, and sets a status', async () => {
  const scope = effectScope()
  const state = scope.run(() => usePresence(brain.client))!
  expect(state.value.ready).toBe(false)
  brain.users.set({ users: { ann: 'online' }, ready: true })
  expect(state.value.users).toEqual({ ann: 'online' })

  await state.value.set('away')
  expect(brain.stated).toEqual(['away'])
  scope.stop()
  expect(brain.users.listeners.size).toBe(0)
})

test('the status is that of the connection', () => {
  const scope = effectScope()
  const status = scope.run(() => useStatus(brain.client))!
  brain.connection.set({ state: 'live' })

  expect(status.value).toEqual({ state: 'live' })
  scope.stop()
  expect(brain.connection.listeners.size).toBe(0)
})
