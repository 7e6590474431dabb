import type { BaseCollectionConfig, CollectionConfig, SyncConfig } from '@tanstack/db'
import type { Brain, Query, RowOf } from 'brain-realtime'

export interface BrainCollectionConfig<Tables, C extends keyof Tables & string, TKey extends string | number>
  extends Omit<BaseCollectionConfig<RowOf<Tables, C> & object, TKey>, 'syncMode'> {
  brain: Brain<Tables>
  channel: C
  where?: Query<RowOf<Tables, C>>['where']
}

/**
 * Return the options of a TanStack DB collection with the rows of a channel.
 *
 * `onInsert`, `onUpdate` and `onDelete` are yours: write to the database, then `await brain.until(txid)`, so
 * that the optimistic rows stay until the real ones have come.
 */
export function brainCollectionOptions<Tables, C extends keyof Tables & string, TKey extends string | number>({
  brain,
  channel,
  where,
  ...config
}: BrainCollectionConfig<Tables, C, TKey>): CollectionConfig<RowOf<Tables, C> & object, TKey> {
  type Row = RowOf<Tables, C> & object
  const sync: SyncConfig<Row, TKey>['sync'] = ({ begin, write, commit, markReady, markError }) => {
    const collection = brain.collection(channel, where && { where })
    let written = new Map<TKey, Row>()
    let shown: readonly unknown[] | undefined
    const replace = (rows: readonly Row[]) => {
      const before = written
      written = new Map()
      begin()
      for (const row of rows) {
        const key = config.getKey(row)
        const old = before.get(key)
        if (old !== row) write({ type: old ? 'update' : 'insert', value: row })
        before.delete(key)
        written.set(key, row)
      }
      for (const key of before.keys()) write({ type: 'delete', key })
      commit()
    }
    const show = () => {
      const { rows, ready, error } = collection.get()
      if (error) return markError(error)
      if (!ready) return
      // The status may have changed alone.
      if (rows !== shown) replace((shown = rows) as readonly Row[])
      markReady()
    }
    const unsubscribe = collection.subscribe(show)
    show()
    return unsubscribe
  }
  return { ...config, sync: { sync, rowUpdateMode: 'full' } }
}
