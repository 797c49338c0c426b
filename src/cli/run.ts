import type { MetricsServer } from '#agent/metrics-server.ts';
import { AgentServer } from '#agent/server.ts';
import { ownSocketPath } from '#agent/socket-path.ts';
import { createLog, type Log } from '#base/log.ts';
import { type Config, loadConfig } from '#config/config.ts';
import { formatMistake } from '#config/mistake.ts';
import type { AgentSource } from '#contract/agent.ts';

import { ExitCode } from './failure.ts';
import type { Terminal } from './terminal.ts';
import { TraceLines } from './trace-lines.ts';

/** Signals that end the process: the first one drains, a second one ends it at once. */
const END_SIGNALS = Object.freeze(['SIGINT', 'SIGTERM'] as const);

/** What a shell reports of a process that such a signal ended: 128 and its number. */
const SIGNAL_EXIT_CODES = Object.freeze({ SIGINT: 130, SIGTERM: 143 } as const);

/** `rampart run -c FILE`: runs until a signal comes. */
export async function run(
  terminal: Terminal,
  options: { readonly config: string; readonly socket?: string },
): Promise<ExitCode> {
  const { config, warnings } = loadConfig(options.config);
  const log = createLog({
    format: config.telemetry.log,
    write: (line) => terminal.error(line),
    now: Date.now,
  });
  for (const warning of warnings) log.warning(formatMistake(warning));
  const { startProxy } = await import('#proxy/proxy.ts');
  const proxy = await startProxy(config, { log });
  let agent: AgentServer | null = null;
  let metrics: MetricsServer | null = null;
  try {
    agent = await openAgent(options.socket ?? config.telemetry.control, proxy, log);
    if (config.telemetry.metrics !== null) {
      // Only who asks for metrics pays for loading an HTTP server.
      const { MetricsServer } = await import('#agent/metrics-server.ts');
      metrics = await MetricsServer.listen(config.telemetry.metrics, proxy);
      log.info('metrics open', { where: `http://${metrics.where}/metrics` });
    }
    if (config.telemetry.trace) traceToLog(proxy, terminal);
    announce(config, proxy, { log, control: agent?.path ?? null });
    await untilSignal(log);
  } finally {
    await proxy.stop();
    await agent?.close();
    await metrics?.close();
  }
  log.info('stopped');
  return ExitCode.Ok;
}

/**
 * Opens the control socket. Without it the proxy works all the same, so only a socket that the config names
 * has to open.
 */
async function openAgent(
  control: string | null | undefined,
  source: AgentSource,
  log: Log,
): Promise<AgentServer | null> {
  if (control === null) return null;
  try {
    return await AgentServer.listen(control ?? ownSocketPath(), source);
  } catch (error) {
    if (control !== undefined) throw error;
    log.warning(`no control socket: ${(error as Error).message}`);
    return null;
  }
}

function announce(
  config: Config,
  source: AgentSource,
  options: { readonly log: Log; readonly control: string | null },
): void {
  const { version, io, workers, onRamps } = source.status();
  for (const { name, type, where } of onRamps) options.log.info('on-ramp open', { name, type, where });
  const control = options.control ?? 'off';
  options.log.info(`rampart ${version} is ready`, { config: config.file, io, workers, control });
}

/** The live trace on standard error from the start. */
function traceToLog(source: AgentSource, terminal: Terminal): void {
  const lines = new TraceLines({ colour: false, out: (text) => terminal.error(text) });
  source.watch({
    events: true,
    packets: false,
    take(events) {
      lines.write(events);
      return true;
    },
  });
}

/** Settles at the first signal. A second one ends the process without waiting for what is under way. */
function untilSignal(log: Log): Promise<void> {
  return new Promise((resolve) => {
    let draining = false;
    for (const signal of END_SIGNALS) {
      process.on(signal, () => {
        if (draining) process.exit(SIGNAL_EXIT_CODES[signal]);
        draining = true;
        log.info(`${signal}: draining; a second signal ends at once`);
        resolve();
      });
    }
  });
}
