import type { BrainError, Change } from './types.js'

type Entry<Row> = [change: Change<Row> | undefined, done: () => void]

/** Iterate over what `listen` brings; each change is done once the next one is asked for. */
export const iterate = <Row>(
  listen: (take: (...entry: Entry<Row>) => void, onError: (error: BrainError) => void) => () => void,
): AsyncIterableIterator<Change<Row>> => {
  let off: () => void
  let handled: (() => void) | undefined
  const reader = new ReadableStream<Entry<Row>>({
    start(queue) {
      off = listen(
        (...entry) => queue.enqueue(entry),
        error => (error.code == 'closed' ? queue.close() : queue.error(error)),
      )
    },
    cancel: () => off(),
  }).getReader()
  return {
    async next() {
      for (;;) {
        handled?.()
        const entry = await reader.read()
        if (entry.done) return entry as { value: undefined; done: true }
        const [value, done] = entry.value
        handled = done
        if (value) return { value }
      }
    },
    return() {
      void reader.cancel()
      return reader.read() as Promise<{ value: undefined; done: true }>
    },
    [Symbol.asyncIterator]() {
      return this
    },
  }
}
