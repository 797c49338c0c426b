/** TLS terminators under measurement, all with one certificate, and what loads them. */
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { type Running, start } from './harness.ts';
import { LOAD_CPU, PROXY_CPU } from './peers.ts';

/** A certificate with a P-256 key, which most of the web has. */
export interface BenchCertificate {
  readonly certificate: string;
  readonly key: string;
  /** Both in one file, as HAProxy wants them. */
  readonly both: string;
}

/** Makes one in `folder`. */
export function certificate(folder: string): BenchCertificate {
  const made = {
    certificate: join(folder, 'c.pem'),
    key: join(folder, 'k.pem'),
    both: join(folder, 'ck.pem'),
  };
  const algorithm = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
  const files = ['-keyout', made.key, '-out', made.certificate];
  execFileSync('openssl', ['req', '-x509', ...algorithm, ...files, '-days', '2', '-subj', '/CN=localhost'], {
    stdio: 'ignore',
  });
  writeFileSync(made.both, readFileSync(made.certificate, 'utf8') + readFileSync(made.key, 'utf8'));
  return made;
}

/** A plain origin with a body of `bytes` at `/big`. */
export function bigOrigin(folder: string, port: number, bytes: number): Running {
  writeFileSync(join(folder, 'big'), Buffer.alloc(bytes, 'x'));
  const location = `location /big { root ${folder}; } location / { return 200 "hello\\n"; }`;
  return nginx(folder, {
    name: 'tls-origin',
    cpu: LOAD_CPU,
    server: `listen 127.0.0.1:${port}; ${location}`,
  });
}

/** nginx, terminating TLS before an HTTP origin. */
export function nginxTls(folder: string, ports: { at: number; to: number }, of: BenchCertificate): Running {
  const server = `listen 127.0.0.1:${ports.at} ssl;
    ssl_certificate ${of.certificate}; ssl_certificate_key ${of.key};
    ssl_protocols TLSv1.2 TLSv1.3; ssl_session_tickets on;
    location / { proxy_pass http://up; proxy_http_version 1.1;
    proxy_set_header Connection ""; proxy_max_temp_file_size 0; }`;
  const upstream = `upstream up { server 127.0.0.1:${ports.to}; keepalive 16; }`;
  return nginx(folder, { name: 'tls-nginx', cpu: PROXY_CPU, server, upstream });
}

/** HAProxy, the same. */
export function haproxyTls(folder: string, ports: { at: number; to: number }, of: BenchCertificate): Running {
  const file = join(folder, 'tls-haproxy.cfg');
  writeFileSync(
    file,
    `global
  nbthread 1
  maxconn 4000
  tune.ssl.default-dh-param 2048
defaults
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  mode http
  http-reuse always
listen web
  bind 127.0.0.1:${ports.at} ssl crt ${of.both} alpn http/1.1
  server up 127.0.0.1:${ports.to}
`,
  );
  return start('haproxy', ['-f', file, '-db'], { cpu: PROXY_CPU });
}

/** Rampart's config, the same. */
export function rampartTls(ports: { at: number; to: number }, of: BenchCertificate): string {
  return `
on_ramps:
  - name: web
    type: tcp
    listen: 127.0.0.1:${ports.at}
    context: { account: bench, vnet: default }
    upgrade: http
    tls: { certificates: [{ certificate: ${of.certificate}, key: ${of.key} }] }
off_ramps:
  - name: origin
    type: http
    origins: [127.0.0.1:${ports.to}]
routes:
  - on_ramp: web
    via: origin
`;
}

function nginx(
  folder: string,
  of: { name: string; cpu: number; server: string; upstream?: string },
): Running {
  const file = join(folder, `${of.name}.conf`);
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
    .map((kind) => `${kind}_temp_path ${folder}/${kind};`)
    .join(' ');
  writeFileSync(
    file,
    `daemon off; worker_processes 1; pid ${folder}/${of.name}.pid; user root; worker_rlimit_nofile 40000;
events { worker_connections 16000; }
http { access_log off; keepalive_requests 100000000; sendfile on; ${temporary}
  ${of.upstream ?? ''}
  server { ${of.server} } }`,
  );
  return start('nginx', ['-c', file, '-e', join(folder, `${of.name}.err`), '-p', folder], { cpu: of.cpu });
}
