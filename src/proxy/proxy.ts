/**
 * `proxy` is the data plane of one node: it joins on-ramps, the flow pipeline, upgrades and off-ramps, none
 * of which know each other, into a running whole made from a config and an application's hooks.
 *
 * ```
 *   tunnel ─► flow ─► upgrade ─► offramp        onramp ─► upgrade ─► offramp
 *      ▲________│ (forward)
 * ```
 * Files: `proxy-contract.ts` (the interfaces that they meet by), `stats.ts`, `trace.ts`, `records.ts`,
 * `ways-out.ts` (off-ramps by name), `ip-plane.ts` (tunnels, pipeline, stack), `stream-plane.ts` (streams,
 * sessions, HTTP), `agent-view.ts` (what the control socket tells), `explain.ts`.
 */
import type { Log } from '#base/log.ts';
import type { Config } from '#config/config.ts';
import type { TelemetryConfig } from '#config/telemetry.ts';
import type { AgentSource } from '#contract/agent.ts';
import type { MetricsSource } from '#contract/metrics.ts';
import type { FlowRecord } from '#contract/record.ts';
import { openEngine } from '#io/engine.ts';
import type { Io } from '#io/io.ts';
import { LayeredIo } from '#io/layered.ts';
import { RelayHub } from '#io/relay.ts';
import { PACKET_SLOT_BYTES } from '#packet/virtio-header.ts';

import { AccessLog } from './access-log/access-log.ts';
import { LineFormat } from './access-log/line-format.ts';
import { LogFile } from './access-log/log-file.ts';
import { AgentView } from './agent-view.ts';
import type { Assembly } from './assembly.ts';
import { Networks } from './flow/networks.ts';
import { Routes } from './flow/routes.ts';
import type { Hooks } from './hooks/hooks.ts';
import { loadHooks } from './hooks/load.ts';
import { HookRunner } from './hooks/runner.ts';
import { IpPlane } from './ip-plane.ts';
import { type Limits, type Stats, STREAM_SLOT_BYTES, type Worker } from './proxy-contract.ts';
import { Records } from './records.ts';
import { Counter, createStats } from './stats.ts';
import { StreamPlane } from './stream-plane.ts';
import { RECORD_SLOT_BYTES } from './tls/tls-hub.ts';
import { usesTls } from './tls-plane.ts';
import { TraceHub } from './trace.ts';
import { OffRampTable } from './ways-out.ts';

/** What a proxy is started with beside its config. */
export interface ProxyOptions {
  readonly log: Log;
  /** The application, when it is not the config's hooks file. */
  readonly hooks?: Hooks;
}

/** A data plane at work. */
export interface RunningProxy extends AgentSource, MetricsSource {
  /**
   * Ends it: no new flow is taken, what is under way ends with the reason `shutdown`, everything is closed.
   */
  stop(): Promise<void>;
}

/** How much of the arena is reserved beyond the pools: message headers, contexts, rings. */
const ARENA_SPARE_BYTES = 64 << 20;

/**
 * Starts the data plane of a config. When it returns, every on-ramp is open.
 *
 * @throws RampartError when anything cannot be opened; then nothing stays open.
 */
export async function startProxy(config: Config, options: ProxyOptions): Promise<RunningProxy> {
  const { log } = options;
  const application = options.hooks ?? (config.hooks === null ? {} : await loadHooks(config.hooks));
  const limits: Limits = config.limits;
  const tls = usesTls(config, application);
  const streamBytes = STREAM_SLOT_BYTES + (tls ? RECORD_SLOT_BYTES : 0);
  const engine = openEngine({
    arenaBytes: limits.packetSlots * PACKET_SLOT_BYTES + limits.streamSlots * streamBytes + ARENA_SPARE_BYTES,
    // The environment has the last word: it is what a person at the machine sets.
    ...(config.io === 'auto' || (process.env.RAMPART_IO ?? '') !== '' ? {} : { kind: config.io }),
    log: (line) => log.info(line),
  });
  const io = tls ? new LayeredIo(engine) : engine;
  let running: Node | null = null;
  try {
    running = new Node(assemble(io, { config, log, application }));
    await running.start();
    return running;
  } catch (error) {
    await running?.stop();
    if (running === null) io.stop();
    throw error;
  }
}

function assemble(io: Io, given: { config: Config; log: Log; application: Hooks }): Assembly {
  const { config, log, application } = given;
  const limits: Limits = config.limits;
  const stats = createStats();
  const wallClock = (): number => performance.timeOrigin + performance.now();
  const tracer = new TraceHub({ memory: io.arena.bytes, stats, wallClock });
  const hooks = new HookRunner(application, {
    stats,
    limits,
    offRamps: new Set(config.offRamps.map((offRamp) => offRamp.name)),
    onFailure: (hook, error) => log.warning(error.message, { hook, code: error.code }),
  });
  const access = openAccessLog(config.telemetry, { log, stats });
  const records = new Records({
    tracer,
    now: () => io.refreshNow(),
    end: hooks.end,
    access: access === null ? null : (record) => access.ended(record),
    log: config.telemetry.records ? (record) => log.info('ended', recordFields(record)) : null,
  });
  const worker: Worker = {
    io,
    packets: io.arena.pool(PACKET_SLOT_BYTES, limits.packetSlots),
    streams: io.arena.pool(STREAM_SLOT_BYTES, limits.streamSlots),
    relays: new RelayHub(io),
    records,
    stats,
    tracer,
    limits,
  };
  const networks = new Networks();
  const routes = new Routes(networks);
  routes.replace(config.routes);
  return { config, log, worker, hooks, networks, routes, ways: new OffRampTable(config), access };
}

/** @throws RampartError RAMP_CONFIG when the file cannot be opened. */
function openAccessLog(
  { accessLog, traceContext }: TelemetryConfig,
  { log, stats }: { readonly log: Log; readonly stats: Stats },
): AccessLog | null {
  if (accessLog === null && !traceContext) return null;
  const { counters } = stats;
  const onLost = (lines: number, error: Error): void => {
    counters[Counter.AccessLogDropped] = (counters[Counter.AccessLogDropped] as number) + lines;
    log.error(`the access log lost ${lines} lines: ${error.message}`);
  };
  const template = accessLog?.template ?? null;
  return new AccessLog({
    file:
      accessLog === null
        ? null
        : LogFile.open({
            path: accessLog.file,
            rotateBytes: accessLog.rotateBytes,
            keep: accessLog.keep,
            onLost,
          }),
    format: template === null ? LineFormat.json() : LineFormat.template(template),
    createTrace: traceContext,
    stats,
  });
}

class Node extends AgentView implements RunningProxy {
  readonly #assembly: Assembly;
  #ip: IpPlane | null = null;
  #streams: StreamPlane | null = null;
  #stopped = false;

  constructor(assembly: Assembly) {
    super(assembly);
    this.#assembly = assembly;
  }

  async start(): Promise<void> {
    const assembly = this.#assembly;
    await assembly.hooks.start(assembly.config.app, undefined);
    this.#streams = new StreamPlane(assembly);
    await this.#streams.open();
    if (IpPlane.isNeeded(assembly.config)) {
      this.#ip = new IpPlane(assembly, this.#streams);
      await this.#ip.open();
    }
    this.show(this.#ip, this.#streams);
    this.#streams.listen();
  }

  async stop(): Promise<void> {
    if (this.#stopped) return;
    this.#stopped = true;
    this.draining = true;
    const { worker } = this.#assembly;
    await this.#streams?.drain(DRAIN_MS);
    this.#streams?.close();
    await this.#ip?.close();
    // What was closed completes in the turns that follow; then nothing refers to the engine's memory.
    await settled(worker.io);
    worker.relays.close();
    worker.io.stop();
    await this.#assembly.access?.close();
  }
}

/** How long streams and requests under way may take to end by themselves. */
const DRAIN_MS = 5000;

/** How long completions of what was closed may take at the end. */
const SETTLE_MS = 500;

async function settled(io: Io): Promise<void> {
  const until = performance.now() + SETTLE_MS;
  while (io.audit().operations > 0 && performance.now() < until) {
    io.flush();
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

function recordFields(record: FlowRecord): Record<string, string | number | null> {
  const { source, destination, identity } = record;
  return {
    flow: record.flow,
    account: record.account,
    vnet: record.vnet,
    user: identity?.user ?? null,
    device: identity?.device ?? null,
    on_ramp: record.onRamp,
    off_ramp: record.offRamp,
    layer: record.layer,
    protocol: record.protocol,
    source: `${source.address}:${source.port}`,
    destination: `${destination.address}:${destination.port}`,
    rule: record.rule,
    reason: record.reason,
    ms: record.endedAt - record.startedAt,
    bytes_up: record.bytesUp,
    bytes_down: record.bytesDown,
    packets_up: record.packetsUp,
    packets_down: record.packetsDown,
  };
}
