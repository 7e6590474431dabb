// A program that uses the client as its standard input says, and prints what it gets: JSON, one a line.
import { createInterface } from 'node:readline'
import { createBrain, type Brain, type BrainError } from '../src/index.js'

const memory = new Map<string, string>()
const storage = {
  getItem: (name: string) => memory.get(name) ?? null,
  setItem: (name: string, value: string) => void memory.set(name, value),
  removeItem: (name: string) => void memory.delete(name),
}
const print = (what: object) => console.log(JSON.stringify(what))
const ends = new Map<string, () => void>()
let brain: Brain
let token: string | null = null

const commands: Record<string, (...given: any[]) => unknown> = {
  create(url: string, options: object) {
    brain = createBrain(url, { storage, token: () => token, ...options })
    brain.onStatus(status => print({ status }))
  },
  token(next: string) {
    token = next
  },
  collection(name: string, channel: string, query: object) {
    const collection = brain.collection(channel, query)
    const show = () => {
      const { rows, ready, error } = collection.get()
      print({ name, rows, ready, error: error?.code })
    }
    ends.set(name, collection.subscribe(show))
    show()
  },
  subscribe(name: string, channel: string, options: object) {
    const onError = ({ code, message, advice }: BrainError) => print({ name, error: { code, message, advice } })
    ends.set(name, brain.subscribe(channel, change => print({ name, change }), { ...options, onError }))
  },
  end: (name: string) => ends.get(name)!(),
  presence(name: string) {
    const presence = brain.presence()
    ends.set(name, presence.subscribe(() => print({ name, ...presence.get() })))
  },
  set: (status: 'away') => brain.presence().set(status),
  publish: (channel: string, type: string, data: null) => brain.publish(channel, type, data),
  until: (txid: string) => brain.until(txid),
  async changes(name: string, channel: string, options: object, count: number) {
    for await (const change of brain.changes(channel, options)) {
      print({ name, change })
      if (--count == 0) break
    }
  },
  close: () => brain.close(),
}

createInterface(process.stdin).on('line', async line => {
  const [command, ...given] = JSON.parse(line)
  try {
    print({ done: command, answer: (await commands[command]!(...given)) ?? null })
  } catch (error) {
    const { message, code, advice } = error as BrainError
    print({ done: command, failed: { message, code, advice } })
  }
})
