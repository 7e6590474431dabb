// The page of the battery: the table of examples/react, and a record of all that it has shown.
import { StrictMode } from 'react'
import { createRoot, type Root } from 'react-dom/client'
import { Orders } from './OrdersTable'

// The cells of each row; null while it is loading, and nothing at all where no table is mounted.
type Shown = { rows: string[][] | null }

const element = document.getElementById('root')!
const renders: string[] = []
let root: Root | undefined

// How many frames of each kind the client has read, whichever way they came.
const frames: Record<string, number> = {}
const parse = JSON.parse
JSON.parse = (...given: Parameters<typeof parse>) => {
  const parsed = parse(...given)
  const op: unknown = parsed?.op
  if (typeof op === 'string') frames[op] = (frames[op] ?? 0) + 1
  return parsed
}

function shown(): Shown | undefined {
  if (element.firstElementChild === null) return undefined
  const rows = element.querySelector('table')?.rows
  return { rows: rows ? Array.from(rows, (row) => Array.from(row.cells, (cell) => cell.textContent)) : null }
}

// It is called after each commit of React, before anything else happens.
new MutationObserver(() => {
  const render = JSON.stringify(shown() ?? {})
  if (render !== renders.at(-1)) renders.push(render)
}).observe(element, { childList: true, subtree: true, characterData: true })

Object.assign(window, {
  mount() {
    root = createRoot(element)
    root.render(<StrictMode><Orders /></StrictMode>)
  },
  unmount() {
    root?.unmount()
  },
  shown: () => JSON.stringify(shown() ?? {}),
  count: (op: string) => frames[op] ?? 0,
  renders: () => `[${renders.join(',')}]`,
})
