#!/usr/bin/env node
/** The `rampart` command: the command line of src/cli on the pinned Node. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';

import { ensureInstalled, ROOT, requireSupportedPlatform, run } from './runtime.mjs';

requireSupportedPlatform();
// Only a checkout has the lockfile; an installed package has its dependencies already.
if (existsSync(join(ROOT, 'package-lock.json'))) ensureInstalled(ROOT, { development: false });
process.exitCode = await run([join(ROOT, 'src/cli/main.ts'), ...process.argv.slice(2)]);
