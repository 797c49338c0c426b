/**
 * `cli` is what a person types: `rampart run`, `check`, `explain`, `trace`, `top`, `status`, `start`,
 * `version`. It composes and prints; what it prints about was decided elsewhere. Each command lies in a file
 * of its own name and is loaded only when it is called.
 *
 * `main.ts` is the program; this file has the commands and their options. `terminal.ts` knows colours and
 * tables, `failure.ts` the exit codes, `trace-lines.ts` and `pcapng.ts` the forms of a trace; `start.ts` and
 * its world are the demonstration.
 */
import { Command, CommanderError, Option } from 'commander';

import { packageVersion } from '#base/version.ts';

import { type ExitCode, ExitCode as Exit, type OutputFormat } from './failure.ts';
import type { Terminal } from './terminal.ts';

/**
 * Runs one command line, without the names of runtime and program.
 *
 * @returns the exit code: 0 done, 1 failed, 2 a mistake in command line, config or hooks file.
 */
export async function runCommandLine(arguments_: readonly string[], terminal: Terminal): Promise<number> {
  let code: number = Exit.Ok;
  let output: OutputFormat = 'text';
  const program = createProgram(terminal, async (wanted, command) => {
    output = wanted;
    code = await command();
  });
  try {
    await program.parseAsync(arguments_, { from: 'user' });
  } catch (error) {
    // Commander has said what is wrong, or has shown the help that was asked for.
    if (error instanceof CommanderError) return error.exitCode === 0 ? Exit.Ok : Exit.Usage;
    const { reportFailure } = await import('./failure.ts');
    return reportFailure(terminal, error, output);
  }
  return code;
}

/** Ends the help of the program. */
const EXIT_CODES_TEXT = `
Exit codes:
  0  done
  1  failed
  2  a mistake in the command line, the config or the hooks file; nothing was started`;

/** Runs a command that was chosen, and keeps its exit code. */
type Runner = (
  output: OutputFormat,
  command: () => ExitCode | number | Promise<ExitCode | number>,
) => Promise<void>;

/** All commands with their options: also what the reference page is written from. */
export function createProgram(terminal: Terminal, run: Runner): Command {
  const program = new Command('rampart')
    .description(
      'A programmable proxy: traffic in at any layer, one typed program decides, traffic out at any layer.',
    )
    .addHelpText('after', EXIT_CODES_TEXT)
    .version(packageVersion(), '-V, --version', 'show the version')
    .exitOverride()
    .configureOutput({
      writeOut: (text) => terminal.out(text),
      writeErr: (text) => terminal.error(text),
      getOutHelpWidth: () => terminal.columns(),
      getErrHelpWidth: () => terminal.columns(),
      getOutHasColors: () => terminal.colour,
      getErrHasColors: () => terminal.colour,
    })
    .showHelpAfterError('(rampart --help shows what there is)')
    .helpOption('-h, --help', 'show this help')
    .helpCommand(false);
  addRunning(program, terminal, run);
  addLooking(program, terminal, run);
  // Settings of the program reach only commands that are made from it; these are all made by now.
  for (const command of program.commands) command.copyInheritedSettings(program);
  return program;
}

/** The commands as the reference page shows them; running one of them prints nothing and does nothing. */
export function documentedProgram(): Command {
  const nowhere: Terminal = {
    out() {},
    error() {},
    colour: false,
    interactive: false,
    columns: () => 110,
    rows: () => 24,
  };
  return createProgram(nowhere, async () => {});
}

/** Commands that read a file or run it. */
function addRunning(program: Command, terminal: Terminal, run: Runner): void {
  program
    .command('start')
    .description('bring up a small world of namespaces on this machine and show traffic going through it')
    .option('--once', 'end after the demonstration, with exit code 0 when all of it went well', false)
    .action((options: { once: boolean }) =>
      run('text', async () => (await import('./start.ts')).start({ once: options.once })),
    );
  program
    .command('run')
    .description('run a config until SIGINT or SIGTERM; the first drains, a second ends at once')
    .requiredOption('-c, --config <file>', 'the config')
    .option('-s, --socket <path>', 'make the control socket here, whatever the config says')
    .action((options: { config: string; socket?: string }) =>
      run('text', async () => (await import('./run.ts')).run(terminal, options)),
    );
  program
    .command('check')
    .description('check a config and its hooks file without starting anything')
    .argument('<file>', 'the config')
    .addOption(outputOption())
    .action((file: string, options: { output: OutputFormat }) =>
      run(options.output, async () => (await import('./check.ts')).check(terminal, file, options.output)),
    );
  program
    .command('explain')
    .description('tell which on-ramp, route, hooks and off-ramp a flow would meet, and why')
    .argument('<source>', 'address that the flow comes from')
    .argument('<destination>', 'ADDRESS:PORT, or an address alone for ICMP')
    .option('-c, --config <file>', 'explain by this config; without it the running process is asked')
    .option('--account <name>', 'account of the flow')
    .option('--vnet <name>', 'virtual network of the flow')
    .option('--on-ramp <name>', 'on-ramp that the flow comes in by')
    .option('--protocol <name>', 'tcp, udp or icmp; default tcp, without a port icmp')
    .addOption(socketOption())
    .addOption(outputOption())
    .action((source: string, destination: string, options) =>
      run(options.output, async () =>
        (await import('./explain.ts')).explain(terminal, { source, destination }, options),
      ),
    );
  program
    .command('version')
    .description('show the version')
    .addOption(outputOption())
    .action((options: { output: OutputFormat }) =>
      run(options.output, async () => (await import('./version.ts')).version(terminal, options.output)),
    );
}

/** Commands that look into a running process. */
function addLooking(program: Command, terminal: Terminal, run: Runner): void {
  program
    .command('status')
    .description('show what the running process is and whether its ramps work; exit code 1 when one does not')
    .addOption(socketOption())
    .addOption(outputOption())
    .action((options) =>
      run(options.output, async () => (await import('./status.ts')).status(terminal, options)),
    );
  program
    .command('trace')
    .description("watch flows on their way through the layers, or write the on-ramps' packets to a file")
    .option('--account <name>', 'only this account')
    .option('--vnet <name>', 'only this virtual network')
    .option('--host <address>', 'only flows from or to this address')
    .option('--port <number>', 'only flows from or to this port')
    .option(
      '--stage <name...>',
      'only these stages: packet, flow, hook, verdict, upgrade, stream, drop, end, …',
    )
    .option('--flow <number>', 'only this flow')
    .option('--pcap <file>', 'write packets to this file as pcapng; - is standard output')
    .option('--count <number>', 'end after so many events or packets')
    .addOption(socketOption())
    .addOption(outputOption())
    .action((options) =>
      run(options.output, async () => (await import('./trace.ts')).trace(terminal, options)),
    );
  program
    .command('top')
    .description('show live rates, networks, flows and drops by reason')
    .option('--once', 'print one table and end', false)
    .option('--interval <duration>', 'time between two looks', '1s')
    .addOption(socketOption())
    .addOption(outputOption())
    .action((options) => run(options.output, async () => (await import('./top.ts')).top(terminal, options)));
}

function outputOption(): Option {
  return new Option('-o, --output <format>', 'form of the output').choices(['text', 'json']).default('text');
}

function socketOption(): Option {
  return new Option('-s, --socket <path>', 'control socket of the process; default: where `run` puts it');
}
