/** The `rampart` program. */
import { enableCompileCache } from 'node:module';

// Before anything else is loaded: compiled code is kept, so every later start is quick.
enableCompileCache();
const { runCommandLine } = await import('./cli.ts');
const { processTerminal } = await import('./terminal.ts');

// A reader that has seen enough (`rampart trace | head`) is no failure.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error;
  process.exit(0);
});

process.exitCode = await runCommandLine(process.argv.slice(2), processTerminal());
