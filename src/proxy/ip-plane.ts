import { randomBytes } from 'node:crypto';

import { RampartError } from '#base/error.ts';
import { formatSocketAddress, parseIp, type SocketAddress } from '#base/ip.ts';
import type { Config } from '#config/config.ts';
import type { GueOffRamp, IpTunnelOffRamp, OffRampConfig, TunOffRamp } from '#config/off-ramps.ts';
import { isIpOffRamp } from '#config/off-ramps.ts';
import { isListenerOnRamp, type OnRampConfig } from '#config/on-ramps.ts';
import type { FlowFilter, FlowSummary, RampStatus } from '#contract/agent.ts';
import { CloseReason } from '#contract/record.ts';
import { echoSupport } from '#io/echo-socket.ts';
import type { Fd } from '#io/io.ts';

import { FlowPipeline } from './flow/pipeline.ts';
import type { StreamOffRamp } from './offramp/offramp.ts';
import { type Assembly, configContext } from './assembly.ts';
import type { DialPlan, IpTunnel, NetworkId } from './proxy-contract.ts';
import type { StreamPlane } from './stream-plane.ts';
import { Admission } from './tunnel/admission.ts';
import { DeviceTunnel } from './tunnel/device-tunnel.ts';
import { GuePort } from './tunnel/gue-port.ts';
import { type OpenDevice, openDevice } from './tunnel/open-device.ts';
import { SeqpacketListener } from './tunnel/seqpacket-listener.ts';
import { SeqpacketTunnel } from './tunnel/seqpacket-tunnel.ts';
import type { TunnelHost } from './tunnel/tunnel-host.ts';
import { TunnelRegistry } from './tunnel/tunnel-registry.ts';
import { EchoUpgrade } from './upgrade/echo.ts';
import { SessionUpgrade } from './upgrade/session.ts';
import { Stack } from './upgrade/stack.ts';
import { StackConnector } from './upgrade/stack-connect.ts';
import { openStackNamespace } from './upgrade/stack-namespace.ts';

/**
 * Layer 3 of one node: its IP tunnels, the flow pipeline, and the stack that turns packets into streams and
 * back.
 */
export class IpPlane {
  readonly pipeline: FlowPipeline;
  readonly registry = new TunnelRegistry();
  readonly #assembly: Assembly;
  readonly #streams: StreamPlane;
  readonly #host: TunnelHost;
  readonly #devices: OpenDevice[] = [];
  readonly #listeners: (SeqpacketListener | GuePort)[] = [];
  readonly #status: RampStatus[] = [];
  /** What is wrong with an off-ramp, by name; absent when it works. */
  readonly #trouble = new Map<string, string>();
  #stack: Stack | null = null;
  #connector: StackConnector | null = null;

  /** True when the config has an IP tunnel, on either side. */
  static isNeeded(config: Config): boolean {
    return (
      config.onRamps.some((onRamp) => !isListenerOnRamp(onRamp)) ||
      config.offRamps.some((offRamp) => isIpOffRamp(offRamp.type))
    );
  }

  constructor(assembly: Assembly, streams: StreamPlane) {
    this.#assembly = assembly;
    this.#streams = streams;
    const { worker, networks, routes, ways, hooks, log } = assembly;
    const seed = new Uint32Array(randomBytes(16).buffer.slice(0, 16));
    this.pipeline = new FlowPipeline(worker, {
      networks,
      routes,
      ways,
      hooks,
      tunnels: this.registry,
      seed: [seed[0] as number, seed[1] as number, seed[2] as number, seed[3] as number],
    });
    this.#host = {
      worker,
      sink: this.pipeline,
      registry: this.registry,
      admission: new Admission({
        hook: hooks.tunnel,
        contextBytesMax: worker.limits.contextBytesMax,
        networkOf: (account, vnet) => networks.admit(account, vnet),
      }),
      log: ({ event, tunnel, text }) => log.info(`tunnel ${event}`, { tunnel, text }),
      onOpened: (tunnel) => ways.opened(tunnel),
      onClosed: (tunnel) => {
        ways.closed(tunnel);
        if (this.#assembly.config.offRamps.some(({ name }) => name === tunnel.name)) {
          this.#trouble.set(tunnel.name, 'the tunnel is closed');
        }
      },
    };
  }

  /**
   * Opens the stack, the off-ramps and then the on-ramps. @throws RampartError; what was opened is closed by
   * `close`.
   */
  async open(): Promise<void> {
    const { config, worker } = this.#assembly;
    await this.#openStack();
    this.#tellEchoSupport();
    this.pipeline.attachUpgrades({
      tcp: this.#stack,
      udp: new SessionUpgrade(worker, this.pipeline, this.#streams.sessions),
      icmp: new EchoUpgrade(worker, { host: this.pipeline }),
    });
    for (const offRamp of config.offRamps) await this.#openOffRamp(offRamp);
    for (const onRamp of config.onRamps) await this.#openOnRamp(onRamp);
  }

  /** What the control socket tells of the on-ramps. */
  status(): readonly RampStatus[] {
    return this.#status;
  }

  /** What is wrong with an off-ramp; empty when it works. */
  trouble(offRamp: string): string {
    return this.#trouble.get(offRamp) ?? '';
  }

  flows(filter: FlowFilter): readonly FlowSummary[] {
    return this.pipeline.summaries(filter);
  }

  /** Ends all tunnels and flows. */
  async close(): Promise<void> {
    for (const listener of this.#listeners) listener.close();
    for (const tunnel of [...this.registry.open()]) tunnel.close();
    this.pipeline.close(CloseReason.Shutdown);
    await this.#stack?.close();
    const { io } = this.#assembly.worker;
    io.flush();
    for (const device of this.#devices) await device.close();
  }

  /**
   * Without a stack everything works that stays at layer 3; a route that needs it makes its absence an error.
   */
  async #openStack(): Promise<void> {
    const { worker, log } = this.#assembly;
    try {
      const place = await openStackNamespace();
      const stack = new Stack(worker, {
        place,
        host: this.pipeline,
        tunnels: this.registry,
        streams: this.#streams.handler,
        onFailed: (errno) => log.error('the stack has failed; no flow can be upgraded', { errno }),
      });
      this.#stack = stack;
      const { namespace } = place;
      this.#connector = new StackConnector(worker, { stack, host: this.pipeline, namespace });
    } catch (error) {
      if (this.#needsStack()) throw error;
      log.warning(`no TCP stack, so flows stay packets: ${(error as Error).message}`);
    }
  }

  /**
   * Echo to hosts behind plain sockets needs a permission that not everybody has; said once, not per packet.
   */
  #tellEchoSupport(): void {
    const { config, log } = this.#assembly;
    const isWanted = config.offRamps.some(({ type }) => type === 'sockets');
    if (!isWanted || echoSupport() !== 'none') return;
    log.warning(
      'ICMP echo cannot leave by sockets: neither ping sockets nor raw sockets are permitted; ' +
        'set net.ipv4.ping_group_range to hold the group of this process, or give it CAP_NET_RAW',
    );
  }

  #needsStack(): boolean {
    const { config } = this.#assembly;
    const tunnels = config.onRamps.some((onRamp) => !isListenerOnRamp(onRamp));
    return tunnels && config.routes.some((route) => route.upgrade !== 'none' && route.protocol !== 'udp');
  }

  async #openOnRamp(onRamp: OnRampConfig): Promise<void> {
    const { name } = onRamp;
    if (isListenerOnRamp(onRamp)) return;
    let where: string;
    if (onRamp.type === 'tun') {
      await this.#openTun(name, onRamp, configContext(onRamp.context, name));
      where = onRamp.namespace === null ? onRamp.device : `${onRamp.device} in ${onRamp.namespace}`;
    } else if (onRamp.type === 'ip-tunnel') {
      const { listen, mtu, sources } = onRamp;
      this.#listeners.push(new SeqpacketListener(this.#host, { name, sources, listen, mtu }));
      where = formatSocketAddress(listen);
    } else {
      const { listen, mtu, sources } = onRamp;
      const port = new GuePort(this.#host, { name, sources, listen, mtu });
      this.#listeners.push(port);
      where = formatSocketAddress(port.address);
    }
    this.#status.push({ name, type: onRamp.type, where, trouble: '' });
  }

  async #openOffRamp(offRamp: OffRampConfig): Promise<void> {
    const { ways } = this.#assembly;
    switch (offRamp.type) {
      case 'tun': {
        const context = configContext(offRamp.context, offRamp.name);
        ways.setTunnel(offRamp.name, await this.#openTun(offRamp.name, offRamp, context));
        break;
      }
      case 'ip-tunnel':
        ways.setTunnel(offRamp.name, this.#openDial(offRamp));
        break;
      case 'gue':
        this.#openGue(offRamp);
        break;
      default:
        if (offRamp.type !== 'on-ramp') return;
    }
    this.#streams.addOffRamp(this.#streamOffRamp(offRamp.name));
  }

  async #openTun(
    name: string,
    spec: TunOffRamp | (OnRampConfig & { type: 'tun' }),
    context: ReturnType<typeof configContext>,
  ): Promise<IpTunnel> {
    const open = await openDevice(spec);
    this.#devices.push(open);
    const network = this.#assembly.networks.intern(context.account, context.vnet);
    return new DeviceTunnel(this.#host, { name, device: open.device, mtu: spec.mtu, context, network });
  }

  #openDial(offRamp: IpTunnelOffRamp): IpTunnel {
    const { name, mtu, connect } = offRamp;
    const context = configContext(offRamp.context, name);
    const network = this.#assembly.networks.intern(context.account, context.vnet);
    // `sources` of an off-ramp are what may come in by it. What we may send from, the far side decides.
    const dial = { address: connect, blob: contextBlob({ ...offRamp.context, sources: [] }) };
    return new SeqpacketTunnel(this.#host, { name, fd: -1, mtu, context, network, dial });
  }

  /** One port; a tunnel for each network, when its first flow comes. */
  #openGue(offRamp: GueOffRamp): void {
    const { name, mtu, remote } = offRamp;
    const any: SocketAddress & { family: 4 | 6 } =
      remote.family === 4
        ? { family: 4, address: '0.0.0.0', port: 0 }
        : { family: 6, address: '::', port: 0 };
    const listen = offRamp.local ?? any;
    const port = new GuePort(this.#host, { name, sources: [], listen, mtu, accept: false });
    this.#listeners.push(port);
    const { networks, ways, log } = this.#assembly;
    ways.setFactory(name, (network: NetworkId) => {
      const account = networks.accountName(networks.accountOf(network));
      const vnet = networks.vnetName(network);
      const spec = { account, vnet, sources: [] };
      try {
        const context = configContext(spec, name);
        return port.openPeer({
          name: `${name} ${account}/${vnet}`,
          remote,
          context,
          network,
          blob: contextBlob(spec),
        });
      } catch (error) {
        log.warning(`no tunnel of ${name} for ${account}/${vnet}: ${(error as Error).message}`);
        return null;
      }
    });
  }

  /** Streams leave by an IP tunnel as packets again. */
  #streamOffRamp(name: string): StreamOffRamp {
    return {
      name,
      origin: null,
      keepsSource: true,
      connect: (plan) => this.#connectThrough(name, plan),
    };
  }

  async #connectThrough(name: string, plan: DialPlan): Promise<Fd> {
    const { target, network, context, flow } = plan;
    const address = parseIp(target.host);
    if (address === null) {
      throw new RampartError(
        'RAMP_CONNECT',
        `${name} carries packets, so it needs an address, not the name ${target.host}`,
        {
          side: 'upstream',
        },
      );
    }
    if (this.#connector === null) {
      throw new RampartError('RAMP_CONNECT', `${name} needs the TCP stack, which is not there`, {
        side: 'upstream',
      });
    }
    const tunnel = this.#assembly.ways.tunnelFor(name, network, address);
    if (tunnel === null) {
      throw new RampartError('RAMP_CONNECT', `${name} has no tunnel of this network to ${target.host}`, {
        side: 'upstream',
        retry: 'yes',
      });
    }
    const source = { address: sourceFor(plan, address.length), port: 0 };
    return await this.#connector.connect({
      context,
      network,
      source,
      target: { address: target.host, port: target.port },
      via: name,
      flow,
      rule: `stream ${flow} by ${name}`,
    });
  }
}

/** The address that packets of a stream leave with: the client's own, where it is one of the network. */
function sourceFor(plan: DialPlan, length: number): string {
  const text = plan.source?.address ?? '';
  const source = parseIp(text);
  if (source === null || source.length !== length) {
    const family = length === 4 ? 'IPv4' : 'IPv6';
    throw new RampartError(
      'RAMP_CONNECT',
      `${plan.via} carries packets, and the client has no ${family} address in this network; ` +
        'name a source in the egress hook',
      { side: 'upstream' },
    );
  }
  return text;
}

/** A context as message 0 or as the private data of datagrams: JSON, without what says nothing. */
function contextBlob(spec: {
  readonly account: string;
  readonly vnet: string;
  readonly user?: string;
  readonly device?: string;
  readonly groups?: readonly string[];
  readonly labels?: Readonly<Record<string, string>>;
  readonly sources?: readonly string[];
}): Uint8Array {
  const kept = Object.entries(spec).filter(([, value]) => {
    if (value === undefined) return false;
    return typeof value !== 'object' || Object.keys(value as object).length > 0;
  });
  return Buffer.from(JSON.stringify(Object.fromEntries(kept)));
}
