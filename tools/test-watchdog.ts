/**
 * Loaded into every process of the test runner (`npm test`). The runner ends a test that takes too long, but
 * waits for ever for a file whose process does not end, because a test left a socket, a program or a timer
 * behind. Such a file ends here: as a failure, and with what it was waiting for.
 */

/** Most that one file may take; the slowest takes half a minute on two cores. */
export const FILE_SECONDS_MAX = 240;

/** Another limit, for the test of this file. */
const SECONDS_VARIABLE = 'TEST_FILE_SECONDS_MAX';

// The runner itself has no such variable, and waits for all files together.
if (process.env.NODE_TEST_CONTEXT !== undefined) {
  const seconds = Number(process.env[SECONDS_VARIABLE] ?? FILE_SECONDS_MAX);
  // Alone it must not keep a process alive that is done.
  setTimeout(() => giveUp(seconds), seconds * 1000).unref();
}

function giveUp(seconds: number): void {
  const waitsFor = process.getActiveResourcesInfo().join(', ') || 'nothing that Node knows of';
  process.stderr.write(`this file did not end within ${seconds} s; it waits for: ${waitsFor}\n`);
  process.exit(1);
}
