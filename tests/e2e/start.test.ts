/**
 * `npm start -- --once`, as the first-time user meets it: by the launcher, as root and as an ordinary user,
 * with each io engine. It makes its own hosts:
 *
 *   laptop ──┬─ production ─┐            ┌─ vnet production 10.10.0.10
 *            └─ staging ────┴─ rampart ──┴─ vnet staging    10.10.0.10
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { cpSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';

import { lacksPrograms, type ProgramResult, ROOT, runProgram } from '#testing/program.ts';

/** `nobody`: an account without a home and without any privilege. */
const NOBODY = 65_534;

const lacking = lacksPrograms('curl', 'ping', 'unshare');
const isRoot = process.getuid?.() === 0;
let copy: string | null = null;

before(() => {
  if (!isRoot || isReadable(ROOT)) return;
  // A checkout below a private folder: an ordinary user gets a copy of what `npm start` needs.
  copy = mkdtempSync(join(tmpdir(), 'rampart-checkout-'));
  for (const entry of readdirSync(ROOT)) {
    if (entry !== '.git') cpSync(join(ROOT, entry), join(copy, entry), { recursive: true });
  }
  spawnSync('chmod', ['-R', 'a+rX', copy]);
});

after(() => {
  if (copy !== null) rmSync(copy, { recursive: true, force: true });
});

function isReadable(folder: string): boolean {
  const identity = { uid: NOBODY, gid: NOBODY };
  return spawnSync(process.execPath, [join(folder, 'bin/rampart.mjs'), 'version'], identity).status === 0;
}

/** Why an ordinary user cannot make namespaces on this machine; false when one can. */
function lacksUserNamespaces(): string | false {
  if (!isRoot) return 'needs root to become an ordinary user';
  const result = spawnSync('unshare', ['-Urn', 'true'], { uid: NOBODY, gid: NOBODY });
  return result.status === 0 ? false : `ordinary users may not make namespaces here: ${result.stderr}`;
}

function start(io: string, identity: { uid?: number; gid?: number } = {}): Promise<ProgramResult> {
  const root = identity.uid === undefined ? ROOT : (copy ?? ROOT);
  return runProgram(process.execPath, [join(root, 'bin/launch.mjs'), 'start', '--once'], {
    ...identity,
    cwd: root,
    env: { RAMPART_IO: io, NO_COLOR: '1', ...(identity.uid === undefined ? {} : { HOME: '/nonexistent' }) },
    patienceMs: 60_000,
  });
}

/** What a user has to have seen, whoever runs it. */
function assertShown({ code, output, errors }: ProgramResult, io: string): void {
  assert.equal(code, 0, `${output}${errors}`);
  assert.match(output, new RegExp(`io engine ${io}`));
  // The same address answers differently in each network.
  assert.match(output, /this is production: hello ada/);
  assert.match(output, /this is staging: hello ada/);
  assert.match(output, /admin pages are closed to laptops/);
  assert.match(output, /databases are for the group dba/);
  assert.match(output, /64 bytes from 10\.10\.0\.10: icmp_seq=1/);
  assert.match(output, /Everything went as it should\./);
}

for (const io of ['uring', 'epoll']) {
  const asRoot = lacking || (isRoot ? false : 'needs root');
  test(`npm start -- --once shows the world to root with ${io}`, { skip: asRoot }, async () => {
    assertShown(await start(io), io);
  });

  const asUser = lacking || lacksUserNamespaces();
  test(`npm start -- --once shows the world to an ordinary user with ${io}`, { skip: asUser }, async () => {
    const result = await start(io, { uid: NOBODY, gid: NOBODY });
    assertShown(result, io);
    assert.match(result.output, /ordinary user/);
  });
}
