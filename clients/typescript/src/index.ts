export { createBrain } from './brain.js'
export * from './types.js'
