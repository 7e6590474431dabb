import { createBrain } from 'brain-realtime'
import { useRows } from 'brain-realtime/vue'
import { effectScope, watch } from 'vue'

const brain = createBrain(process.argv[2])
const scope = effectScope()
scope.run(() => {
  const orders = useRows(brain, 'orders', () => ({ where: { status: 'open' } }))
  watch(orders, ({ rows, ready }) => {
    if (ready) console.log(JSON.stringify(rows))
    if (rows.length === 2) {
      scope.stop()
      brain.close()
    }
  })
})
