/**
 * Configurations of the proxies that stand beside Rampart. One worker or thread each: CPU per unit is
 * compared.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { type Running, start } from './harness.ts';

const ROOT = fileURLToPath(new URL('..', import.meta.url));

/** The CPU that proxies under measurement run on, one at a time; load and origin take the other. */
export const PROXY_CPU = 1;
export const LOAD_CPU = 0;

/** A folder for configs that goes with the process. */
export function scratch(): string {
  const folder = mkdtempSync(join(tmpdir(), 'rampart-bench-'));
  process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

function nginx(folder: string, name: string, text: string, cpu: number): Running {
  const file = join(folder, `${name}.conf`);
  writeFileSync(file, text);
  return start('nginx', ['-c', file, '-e', join(folder, `${name}.err`), '-p', folder], { cpu });
}

const NGINX_HEAD = (folder: string, name: string): string => `
daemon off; worker_processes 1; pid ${folder}/${name}.pid; user root;
worker_rlimit_nofile 40000;
events { worker_connections 16000; }
`;

/** An origin that answers every request with a small body. */
export function origin(folder: string, port: number): Running {
  const http = `http { access_log off; keepalive_requests 100000000;
    server { listen 127.0.0.1:${port} reuseport; location / { return 200 "hello from the origin\\n"; } } }`;
  return nginx(folder, 'origin', NGINX_HEAD(folder, 'origin') + http, LOAD_CPU);
}

/** nginx as an HTTP/1.1 reverse proxy with keep-alive upstream connections. */
export function nginxHttp(folder: string, port: number, to: number): Running {
  const http = `http { access_log off; keepalive_requests 100000000;
    upstream up { server 127.0.0.1:${to}; keepalive 128; keepalive_requests 100000000; }
    server { listen 127.0.0.1:${port} reuseport; location / { proxy_pass http://up; proxy_http_version 1.1;
      proxy_set_header Connection ""; proxy_set_header Host $host; proxy_set_header Via "1.1 edge";
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header X-Forwarded-Host $http_host; } } }`;
  return nginx(folder, 'nginx-http', NGINX_HEAD(folder, 'nginx-http') + http, PROXY_CPU);
}

/** Debian builds the stream module apart (libnginx-mod-stream). */
const STREAM_MODULE = 'load_module /usr/lib/nginx/modules/ngx_stream_module.so;\n';

/** nginx as a TCP proxy (stream module). */
export function nginxTcp(folder: string, port: number, to: number): Running {
  const server = `listen 127.0.0.1:${port}; proxy_pass 127.0.0.1:${to}; proxy_buffer_size 64k;`;
  const stream = `stream { server { ${server} } }`;
  return nginx(folder, 'nginx-tcp', STREAM_MODULE + NGINX_HEAD(folder, 'nginx-tcp') + stream, PROXY_CPU);
}

const HAPROXY_HEAD = `global
  nbthread 1
  maxconn 4000
defaults
  timeout connect 5s
  timeout client 60s
  timeout server 60s
`;

/** HAProxy as an HTTP/1.1 reverse proxy. */
export function haproxyHttp(folder: string, port: number, to: number): Running {
  const file = join(folder, 'haproxy-http.cfg');
  writeFileSync(
    file,
    `${HAPROXY_HEAD}  mode http
  option forwardfor
  http-reuse always
listen web
  bind 127.0.0.1:${port}
  http-request set-header Via "1.1 edge"
  http-request set-header X-Forwarded-Proto http
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
  server up 127.0.0.1:${to}
`,
  );
  return start('haproxy', ['-f', file, '-db'], { cpu: PROXY_CPU });
}

/** HAProxy as a TCP proxy with splice. */
export function haproxyTcp(folder: string, port: number, to: number): Running {
  const file = join(folder, 'haproxy-tcp.cfg');
  writeFileSync(
    file,
    `${HAPROXY_HEAD}  mode tcp
  option splice-auto
  option splice-request
  option splice-response
listen tcp
  bind 127.0.0.1:${port}
  server up 127.0.0.1:${to}
`,
  );
  return start('haproxy', ['-f', file, '-db'], { cpu: PROXY_CPU });
}

/** Rampart with the config text given. */
export function rampart(
  folder: string,
  config: string,
  options: {
    name?: string;
    /** Null: not pinned. */
    cpu?: number | null;
    env?: Record<string, string>;
    /** Words before the program, such as `ip netns exec NAME`. */
    within?: readonly string[];
  } = {},
): Running {
  const file = join(folder, `${options.name ?? 'rampart'}.yaml`);
  writeFileSync(file, config);
  const main = join(ROOT, 'src/cli/main.ts');
  const program = [process.execPath, '--disable-warning=ExperimentalWarning', main, 'run', '-c', file];
  const line = [...(options.within ?? []), ...program];
  return start(line[0] as string, line.slice(1), {
    ...(options.cpu === null ? {} : { cpu: options.cpu ?? PROXY_CPU }),
    ...(options.env === undefined ? {} : { env: options.env }),
  });
}
