import { closeSync, openSync, writeSync } from 'node:fs';

import { AgentClient } from '#agent/client.ts';
import type { WatchBatch } from '#agent/messages.ts';
import { ownSocketPath } from '#agent/socket-path.ts';
import { RampartError } from '#base/error.ts';
import { formatIp, parseIp } from '#base/ip.ts';
import { didYouMean } from '#base/nearest.ts';
import type { TraceFilter } from '#contract/agent.ts';
import type { TraceStage } from '#contract/trace.ts';

import { ExitCode, type OutputFormat } from './failure.ts';
import { PcapWriter } from './pcapng.ts';
import { paint, type Terminal } from './terminal.ts';
import { TraceLines } from './trace-lines.ts';

/** Options of `rampart trace`, as they stand on the command line. */
export interface TraceOptions {
  readonly socket?: string;
  readonly account?: string;
  readonly vnet?: string;
  readonly host?: string;
  readonly port?: string;
  readonly stage?: readonly string[];
  readonly flow?: string;
  /** Write packets to this file; `-` is standard output. */
  readonly pcap?: string;
  /** Stop after so many events or packets. */
  readonly count?: string;
  readonly output: OutputFormat;
}

/** Every stage, in the order in which a flow meets them. */
export const TRACE_STAGES: readonly TraceStage[] = Object.freeze([
  'packet',
  'flow',
  'hook',
  'verdict',
  'upgrade',
  'stream',
  'session',
  'request',
  'response',
  'connect',
  'off-ramp',
  'drop',
  'end',
]);

/** `rampart trace`: what happens, as it happens, until Ctrl-C or until the process ends. */
export async function trace(terminal: Terminal, options: TraceOptions): Promise<ExitCode> {
  const filter = readFilter(options);
  const countMax = readNumber(options.count, 'count', 2 ** 31) ?? Number.POSITIVE_INFINITY;
  const client = await AgentClient.connect(options.socket ?? ownSocketPath());
  const sink = options.pcap === undefined ? eventSink(terminal, options.output) : packetSink(options.pcap);
  let count = 0;
  const stop = (): void => client.close();
  process.once('SIGINT', stop);
  process.once('SIGTERM', stop);
  try {
    await client.watch({ filter, events: sink.events, packets: !sink.events }, (batch) => {
      if (count >= countMax) return;
      count += sink.take(batch, countMax - count);
      if (batch.lost > 0) {
        terminal.error(
          `${paint(terminal, 'yellow', 'warning')} ${batch.lost} were lost: this is too slow for ` +
            'the traffic\n',
        );
      }
      if (count >= countMax) client.close();
    });
    if (options.pcap !== undefined && options.pcap !== '-') {
      terminal.error(`writing packets to ${options.pcap}; Ctrl-C ends\n`);
    }
    await client.ended;
  } finally {
    process.removeListener('SIGINT', stop);
    process.removeListener('SIGTERM', stop);
    sink.close();
    client.close();
  }
  if (options.pcap !== undefined) terminal.error(`${count} packets\n`);
  return ExitCode.Ok;
}

/** Where what is watched goes to. */
interface Sink {
  /** Takes events; else packets. */
  readonly events: boolean;
  /** Takes at most `limit` of a batch, and answers how many it took. */
  take(batch: WatchBatch, limit: number): number;
  close(): void;
}

function eventSink(terminal: Terminal, output: OutputFormat): Sink {
  const lines = new TraceLines(terminal);
  return {
    events: true,
    take(batch, limit) {
      const events = batch.events.slice(0, limit);
      if (output === 'text') lines.write(events);
      else for (const event of events) terminal.out(`${JSON.stringify(event)}\n`);
      return events.length;
    },
    close() {},
  };
}

function packetSink(file: string): Sink {
  const writer = new PcapWriter();
  let fd: number;
  try {
    fd = file === '-' ? 1 : openSync(file, 'w', 0o600);
  } catch (cause) {
    const reason = (cause as NodeJS.ErrnoException).code ?? String(cause);
    throw new RampartError('RAMP_USAGE', `${file} cannot be written (${reason}); name another file`, {
      cause,
    });
  }
  writeSync(fd, writer.header());
  return {
    events: false,
    take(batch, limit) {
      const packets = batch.packets.slice(0, limit);
      for (const packet of packets) for (const block of writer.packet(packet)) writeSync(fd, block);
      return packets.length;
    },
    close() {
      if (fd !== 1) closeSync(fd);
    },
  };
}

/** The filter that the options mean. @throws RampartError RAMP_USAGE */
export function readFilter(options: TraceOptions): TraceFilter {
  const { account, vnet, host, stage } = options;
  const address = host === undefined ? null : parseIp(host);
  if (host !== undefined && address === null) {
    throw new RampartError('RAMP_USAGE', `"${host}" is no host; expected an IP address`);
  }
  for (const name of stage ?? []) {
    if ((TRACE_STAGES as readonly string[]).includes(name)) continue;
    const hint = didYouMean(name, TRACE_STAGES);
    throw new RampartError(
      'RAMP_USAGE',
      `"${name}" is no stage; expected one of ${TRACE_STAGES.join(', ')}${hint}`,
    );
  }
  const port = readNumber(options.port, 'port', 65535);
  const flow = readNumber(options.flow, 'flow', Number.MAX_SAFE_INTEGER);
  return {
    ...(account === undefined ? {} : { account }),
    ...(vnet === undefined ? {} : { vnet }),
    ...(address === null ? {} : { host: formatIp(address) }),
    ...(port === undefined ? {} : { port }),
    ...(flow === undefined ? {} : { flow }),
    ...(stage === undefined ? {} : { stages: stage as readonly TraceStage[] }),
  };
}

function readNumber(text: string | undefined, word: string, max: number): number | undefined {
  if (text === undefined) return undefined;
  const number = Number(text);
  if (/^[0-9]+$/.test(text) && number >= 1 && number <= max) return number;
  throw new RampartError('RAMP_USAGE', `"${text}" is no ${word}; expected a number from 1 to ${max}`);
}
