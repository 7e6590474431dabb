import type { BrainError, Change } from './types.js'

/** Iterate over what `listen` brings; each change is done once the next one is asked for. */
export const iterate = <Row>(
  listen: (
    take: (change: Change<Row> | undefined, done: () => void) => void,
    onError: (error: BrainError) => void,
  ) => () => void,
): AsyncIterableIterator<Change<Row>> => {
  const queue: [Change<Row> | undefined, () => void][] = []
  let wake: (() => void) | undefined
  let error: BrainError | undefined
  let isEnded = false
  const off = listen(
    (...change) => {
      queue.push(change)
      wake?.()
    },
    why => {
      error = why
      wake?.()
    },
  )
  const iterator = (async function* () {
    for (;;) {
      const next = queue.shift()
      if (isEnded) return
      if (next) {
        if (next[0]) yield next[0]
        next[1]()
      } else if (error) {
        if (error.code == 'closed') return
        throw error
      } else await new Promise<void>(resolve => (wake = resolve))
    }
  })()
  return {
    next: () => iterator.next(),
    return() {
      off()
      isEnded = true
      wake?.()
      return iterator.return()
    },
    [Symbol.asyncIterator]() {
      return this
    },
  }
}
