// Prints what each entry of dist/ costs a page, and fails if one costs more than it may.
import { readFileSync } from 'node:fs'
import { gzipSync } from 'node:zlib'

const most = { 'index.js': 5000, 'tabs.js': 1200, 'react.js': 500, 'vue.js': 500, 'tanstack-db.js': 500 }

for (const [file, limit] of Object.entries(most)) {
  const bytes = gzipSync(readFileSync(new URL(`dist/${file}`, import.meta.url)), { level: 9 }).length
  console.log(`${file}: ${bytes} bytes of at most ${limit}, gzip`)
  if (bytes > limit) process.exitCode = 1
}
