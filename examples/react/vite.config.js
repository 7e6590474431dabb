import { defineConfig } from 'vite'

export default defineConfig({
  // The client is a link to clients/typescript, which has a React of its own for its tests: a page must have one.
  resolve: { dedupe: ['react', 'react-dom'] },
})
