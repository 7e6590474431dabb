// Builds dist/, and the one file that Brain serves at /client/brain.js.
import { spawnSync } from 'node:child_process'
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'
import { minify } from 'terser'

const here = dirname(fileURLToPath(import.meta.url))
const dist = join(here, 'dist')
const served = join(here, '../../brain/web/static/client/brain.js')
const { name, version } = JSON.parse(readFileSync(join(here, 'package.json'), 'utf8'))
const entries = ['index', 'tabs', 'react', 'vue', 'tanstack-db']
// Loaded by index.js only where tabs share a connection.
const apart = './tabs.js'

/** Return an entry as one minified module. Private members, which begin with `_`, get short names. */
async function bundled(entry, format, ...external) {
  const { outputFiles } = await build({
    entryPoints: [join(here, `src/${entry}.ts`)],
    bundle: true,
    format,
    target: 'es2022',
    platform: 'neutral',
    external: [name, 'react', 'vue', '@tanstack/db', ...external],
    mangleProps: /^_/,
    minify: true,
    write: false,
    logLevel: 'warning',
  })
  const { code } = await minify(outputFiles[0].text, {
    module: format === 'esm',
    ecma: 2020,
    // `use client`, which React's server components look for, stays.
    compress: { passes: 3, directives: false },
    format: { comments: false },
  })
  return `${code}\n`
}

/** Write the types of all modules, for `import` and for `require`. */
function declareTypes() {
  const typescript = dirname(createRequire(import.meta.url).resolve('typescript/package.json'))
  const compiler = [join(typescript, 'bin/tsc'), '--project', join(here, 'tsconfig.build.json')]
  // The compiler has said what is wrong.
  const { status } = spawnSync(process.execPath, compiler, { stdio: 'inherit' })
  if (status !== 0) process.exit(1)
  for (const file of readdirSync(dist).filter((file) => file.endsWith('.d.ts'))) {
    const types = readFileSync(join(dist, file), 'utf8')
    const required = types.replace(/(['"])(\.{1,2}\/[^'"]+)\.js\1/g, '$1$2.cjs$1')
    writeFileSync(join(dist, file.replace(/\.d\.ts$/, '.d.cts')), required)
  }
}

rmSync(dist, { recursive: true, force: true })
mkdirSync(dist)
mkdirSync(dirname(served), { recursive: true })
for (const entry of entries) {
  writeFileSync(join(dist, `${entry}.js`), await bundled(entry, 'esm', apart))
  writeFileSync(join(dist, `${entry}.cjs`), await bundled(entry, 'cjs', apart))
}
writeFileSync(served, `/* ${name} ${version} */\n${await bundled('index', 'esm')}`)
declareTypes()
