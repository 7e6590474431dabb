import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vitest/config'

export default defineConfig({
  // Not in node_modules: several checkouts may share them.
  cacheDir: '.cache',
  resolve: {
    alias: [{ find: /^brain-realtime$/, replacement: fileURLToPath(new URL('src/index.ts', import.meta.url)) }],
  },
  test: { include: ['test/**/*.test.{ts,tsx}'] },
})
