import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { monitorEventLoopDelay } from 'node:perf_hooks';

import { RampartError } from '#base/error.ts';
import { formatSocketAddress } from '#base/ip.ts';
import type { MetricsSource } from '#contract/metrics.ts';

import { metricsPage, type ProcessFigures } from './metrics-page.ts';

/** Content type of the text format. */
const CONTENT_TYPE = 'text/plain; version=0.0.4; charset=utf-8';

/** Collectors that ask at once; more are turned away, so that descriptors stay for traffic. */
const CONNECTIONS_MAX = 16;

/** How long a request may take to come, and a silent connection may stay. */
const REQUEST_MS = 10_000;

/** Bytes of a request's head: collectors send a few hundred. */
const HEAD_BYTES_MAX = 8192;

/** How often the delay of the event loop is looked at. */
const LAG_RESOLUTION_MS = 20;

type Lag = ReturnType<typeof monitorEventLoopDelay>;

/** Answers `GET /metrics` in the text format of Prometheus. */
export class MetricsServer {
  readonly #server: Server;
  readonly #lag: Lag;

  /** @throws RampartError RAMP_LISTEN */
  static async listen(
    at: { readonly address: string; readonly port: number },
    source: MetricsSource,
  ): Promise<MetricsServer> {
    const lag = monitorEventLoopDelay({ resolution: LAG_RESOLUTION_MS });
    lag.enable();
    const server = createServer({ maxHeaderSize: HEAD_BYTES_MAX }, (request, response) =>
      answer(request, response, () => metricsPage({ ...source.metrics(), process: processFigures(lag) })),
    );
    server.maxConnections = CONNECTIONS_MAX;
    server.requestTimeout = REQUEST_MS;
    server.headersTimeout = REQUEST_MS;
    try {
      await new Promise<void>((resolve, reject) => {
        server.once('error', reject);
        server.listen(at.port, at.address, resolve);
      });
    } catch (cause) {
      lag.disable();
      const reason = (cause as NodeJS.ErrnoException).code ?? (cause as Error).message;
      const where = `${at.address} port ${at.port}`;
      throw new RampartError(
        'RAMP_LISTEN',
        `metrics cannot be served at ${where} (${reason}); change telemetry.metrics`,
        { cause },
      );
    }
    server.on('error', () => {});
    return new MetricsServer(server, lag);
  }

  private constructor(server: Server, lag: Lag) {
    this.#server = server;
    this.#lag = lag;
  }

  /** Address and port where it listens. */
  get where(): string {
    const { address, port, family } = this.#server.address() as AddressInfo;
    return formatSocketAddress({ family: family === 'IPv6' ? 6 : 4, address, port });
  }

  /** Ends all connections and stops. */
  async close(): Promise<void> {
    this.#lag.disable();
    this.#server.closeAllConnections();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }
}

function answer(request: IncomingMessage, response: ServerResponse, page: () => string): void {
  const path = (request.url ?? '').split('?', 1)[0];
  if (path !== '/metrics') {
    response.writeHead(404, { 'content-type': 'text/plain' }).end('metrics are at /metrics\n');
  } else if (request.method !== 'GET' && request.method !== 'HEAD') {
    response.writeHead(405, { allow: 'GET, HEAD' }).end();
  } else {
    const body = page();
    response
      .writeHead(200, { 'content-type': CONTENT_TYPE, 'content-length': Buffer.byteLength(body) })
      .end(request.method === 'HEAD' ? undefined : body);
  }
}

/** Reads what the process used, and begins a new window of the event loop's delay. */
function processFigures(lag: Lag): ProcessFigures {
  const { user, system } = process.cpuUsage();
  const { rss, heapUsed } = process.memoryUsage();
  const figures = {
    cpuSeconds: (user + system) / 1e6,
    residentBytes: rss,
    heapBytes: heapUsed,
    startedAt: performance.timeOrigin / 1000,
    loopLagMean: late(lag.mean),
    loopLagP99: late(lag.percentile(99)),
    loopLagMax: late(lag.max),
  };
  lag.reset();
  return figures;
}

/** The histogram holds whole intervals in nanoseconds, and nonsense while it is empty. */
function late(nanoseconds: number): number {
  if (!Number.isFinite(nanoseconds) || nanoseconds > 3600e9) return 0;
  return Math.max(0, nanoseconds / 1e9 - LAG_RESOLUTION_MS / 1000);
}
