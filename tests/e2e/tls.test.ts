/**
 * TLS at the edges of a whole program, against curl, openssl and nginx.
 *
 *   curl ──TLS──► rampart ──plain──► origin           terminate
 *   curl ──TLS──► rampart ──TLS────► nginx            originate, pass by name, inspect
 */
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { connect } from 'node:tls';

import { ringRefusal } from '#io/engine.ts';
import { TestAuthority } from '#testing/certificates.ts';
import { lacksPrograms, Program, runProgram } from '#testing/program.ts';
import { Origin } from '#testing/origins.ts';
import { RampartProcess } from '#testing/rampart-process.ts';
import { closeAll, until } from '#testing/until.ts';

const skip = lacksPrograms('curl', 'openssl', 'nginx');
const KINDS = ringRefusal() === null ? (['uring', 'epoll'] as const) : (['epoll'] as const);

const HOOKS = `
import { defineHooks } from 'rampart';
export default defineHooks({
  tls(info) {
    if (info.serverName === 'refused.test') return { action: 'reject', reason: 'by name' };
  },
  request(info) {
    if (!info.path.startsWith('/who')) return;
    const { scheme, context } = info;
    const { user = null, groups } = context.identity ?? {};
    const body = JSON.stringify({ scheme, user, groups });
    return { action: 'answer', status: 200, body };
  },
});
`;

for (const io of KINDS) {
  describe(`TLS on ${io}`, { skip }, () => {
    let authority: TestAuthority;
    let other: TestAuthority;
    let origin: Origin;
    let nginx: Nginx;
    let rampart: RampartProcess;
    let folder: string;

    before(async () => {
      folder = mkdtempSync(join(tmpdir(), 'rampart-tls-'));
      authority = new TestAuthority();
      other = new TestAuthority('an unknown authority');
      const own = authority.issue({ name: 'a.test' });
      for (const [end, file] of [
        ['.pem', own.certificateFile],
        ['-key.pem', own.keyFile],
      ]) {
        copyFileSync(file as string, join(folder, `a${end}`));
      }
      const wild = authority.issue({ name: 'b.test', alternatives: 'DNS:*.b.test', rsa: true });
      origin = await Origin.start('plain', ['http@0']);
      nginx = await Nginx.start(authority, other);
      const inspecting = new TestAuthority('inspection');
      copyFileSync(inspecting.certificateFile, join(folder, 'inspect.pem'));
      copyFileSync(inspecting.keyFile, join(folder, 'inspect-key.pem'));
      inspecting.close();
      rampart = await RampartProcess.start({
        io,
        files: { 'hooks.ts': HOOKS },
        config: config({ folder, authority, wild, origin: origin.ports.http, nginx: nginx.ports }),
      });
    });

    after(async () => {
      await closeAll(rampart, origin, nginx);
      authority?.close();
      other?.close();
      rmSync(folder, { recursive: true, force: true });
    });

    /** Runs curl against an on-ramp as if it were `host`. */
    async function curl(
      onRamp: string,
      host: string,
      more: readonly string[] = [],
      path = '/',
    ): Promise<string> {
      const port = await rampart.port(onRamp);
      const to = ['--connect-to', `${host}:443:127.0.0.1:${port}`, `https://${host}${path}`];
      const result = await runProgram('curl', ['-sS', '--max-time', '10', ...more, ...to]);
      return result.output + result.errors;
    }

    const trusting = (): string[] => ['--cacert', authority.certificateFile];

    test('curl reaches a plain origin by TLS, and the origin learns that it came so', async () => {
      const answer = await curl('web', 'a.test', [...trusting(), '-v']);
      assert.match(answer, /TLSv1\.3/);
      assert.match(answer, /ALPN: server accepted http\/1\.1/);
      assert.match(answer, /plain/);
      assert.match(await curl('web', 'a.test', trusting(), '/who'), /"scheme":"https"/);
      assert.match(await curl('web', 'a.test', trusting(), '/fields'), /"x-forwarded-proto":\s*"https"/);
    });

    test('the certificate follows the name; one that is unknown gets the first', async () => {
      assert.match(await curl('web', 'x.b.test', trusting()), /plain/);
      assert.match(await curl('web', 'other.test', trusting()), /no alternative certificate|SSL/);
      assert.match(await curl('web', 'x.b.test', [...trusting(), '--tls-max', '1.2', '--tlsv1.2']), /plain/);
    });

    test('a version below the lowest one is refused', async () => {
      assert.match(
        await curl('strict', 'a.test', [...trusting(), '--tls-max', '1.2']),
        /alert protocol version/,
      );
      assert.match(await curl('strict', 'a.test', trusting()), /plain/);
    });

    test('large bodies go both ways whole', async () => {
      const upload = join(folder, 'upload');
      const bytes = randomBytes(3 << 20);
      writeFileSync(upload, bytes);
      const sent = await curl('web', 'a.test', [...trusting(), '--data-binary', `@${upload}`], '/sha256');
      assert.match(sent, new RegExp(createHash('sha256').update(bytes).digest('hex')));
      const size = ['-o', '/dev/null', '-w', '%{http_code} %{size_download}'];
      assert.match(await curl('web', 'a.test', [...trusting(), ...size], '/bytes/5000000'), /200 5000000/);
      assert.match(await curl('relay', 'n.test', [...trusting(), ...size], '/big'), /200 4194304/);
      assert.match(await curl('to-good', 'a.test', [...trusting(), ...size], '/big'), /200 4194304/);
    });

    test('a client certificate becomes the identity; with none or a strange one none is let in', async () => {
      const alice = authority.issue({ name: 'alice', usage: 'clientAuth', subject: '/OU=ops' });
      const shown = ['--cert', alice.certificateFile, '--key', alice.keyFile];
      const answer = await curl('mutual', 'a.test', [...trusting(), ...shown], '/who');
      assert.deepEqual(JSON.parse(answer), { scheme: 'https', user: 'alice', groups: ['ops'] });
      assert.match(await curl('mutual', 'a.test', trusting()), /alert|certificate required/);
      const mallory = other.issue({ name: 'alice', usage: 'clientAuth' });
      const strange = ['--cert', mallory.certificateFile, '--key', mallory.keyFile];
      assert.match(await curl('mutual', 'a.test', [...trusting(), ...strange]), /alert|unknown ca/);
    });

    test('names are passed through unread to the off-ramp of their route', async () => {
      const answer = await curl('router', 'n.test', trusting());
      assert.match(answer, /nginx good/);
      assert.match(await curl('router', 'sub.m.test', ['-k']), /nginx bad/);
      assert.match(await curl('router', 'nowhere.test', ['-k']), /SSL|reset|closed|alert/i);
    });

    test('the tls hook refuses a name with an alert', async () => {
      assert.match(await curl('web', 'refused.test', trusting()), /alert access denied/);
    });

    test('what is no TLS is refused on an on-ramp with TLS', async () => {
      const port = await rampart.port('web');
      const result = await runProgram('curl', ['-sS', '--max-time', '5', `http://127.0.0.1:${port}/`]);
      assert.notEqual(result.code, 0);
    });

    test('an upstream is verified by name and authority before anything is sent to it', async () => {
      assert.match(await curl('to-good', 'a.test', trusting()), /nginx good/);
      const refused = await curl('to-bad', 'a.test', [
        ...trusting(),
        '-o',
        '/dev/null',
        '-w',
        '%{http_code}',
      ]);
      assert.match(refused, /502/);
      const misnamed = await curl('to-misnamed', 'a.test', [
        ...trusting(),
        '-o',
        '/dev/null',
        '-w',
        '%{http_code}',
      ]);
      assert.match(misnamed, /502/);
    });

    test('a pin lets only the key in that it names', async () => {
      assert.match(await curl('to-pinned', 'a.test', trusting()), /nginx good/);
      const wrong = await curl('to-mispinned', 'a.test', [
        ...trusting(),
        '-o',
        '/dev/null',
        '-w',
        '%{http_code}',
      ]);
      assert.match(wrong, /502/);
    });

    test('inspection mints a certificate for a server that verifies, and reads the requests', async () => {
      const minted = ['--cacert', join(folder, 'inspect.pem')];
      assert.match(await curl('inspect-good', 'n.test', minted), /nginx good/);
      assert.match(await curl('inspect-good', 'n.test', minted, '/who'), /"scheme":"https"/);
    });

    test('inspection shows nothing for a server that does not verify', async () => {
      const minted = ['--cacert', join(folder, 'inspect.pem')];
      assert.match(await curl('inspect-bad', 'm.test', minted), /handshake failure/);
    });

    test('a name on the bypass list is passed through with its own certificate', async () => {
      assert.match(await curl('inspect-bypass', 'n.test', trusting()), /nginx good/);
    });

    test('a certificate is replaced by SIGHUP; connections that are open go on', async () => {
      const port = await rampart.port('web');
      const serialOf = async (): Promise<string> => {
        const args = ['s_client', '-connect', `127.0.0.1:${port}`, '-servername', 'a.test'];
        const shown = await runProgram('openssl', args, { input: '' });
        return (await runProgram('openssl', ['x509', '-serial', '-noout'], { input: shown.output })).output;
      };
      const open = connect({ port, host: '127.0.0.1', servername: 'a.test', ca: authority.certificate });
      let heard = '';
      open.on('data', (chunk: Buffer) => {
        heard += chunk.toString();
      });
      open.write('GET / HTTP/1.1\r\nHost: a.test\r\n\r\n');
      await until('the first answer has come', () => heard.includes('plain'));
      const before = await serialOf();
      const next = authority.issue({ name: 'a.test' });
      copyFileSync(next.certificateFile, join(folder, 'a.pem'));
      copyFileSync(next.keyFile, join(folder, 'a-key.pem'));
      process.kill(rampart.program.pid, 'SIGHUP');
      await until('the new certificate is shown', async () => (await serialOf()) !== before);
      heard = '';
      open.write('GET /again HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n');
      await once(open, 'close');
      assert.match(heard, /plain/);
    });

    test('a certificate that does not fit its key replaces nothing, and the log says so', async () => {
      copyFileSync(other.issue({ name: 'a.test' }).certificateFile, join(folder, 'a.pem'));
      process.kill(rampart.program.pid, 'SIGHUP');
      await until('the log says so', () => /certificates were not replaced/.test(rampart.log));
      assert.match(await curl('web', 'a.test', trusting()), /plain/);
    });
  });
}

interface ConfigParts {
  readonly folder: string;
  readonly authority: TestAuthority;
  readonly wild: { readonly certificateFile: string; readonly keyFile: string };
  readonly origin: number;
  readonly nginx: { readonly good: number; readonly bad: number };
}

function config({ folder, authority, wild, origin, nginx }: ConfigParts): string {
  const first = `{ certificate: ${folder}/a.pem, key: ${folder}/a-key.pem }`;
  const trusted = `authorities: ${authority.certificateFile}`;
  const second = `{ certificate: ${wild.certificateFile}, key: ${wild.keyFile} }`;
  const inspect = (more: string): string =>
    `inspect: { certificate: ${folder}/inspect.pem, key: ${folder}/inspect-key.pem, ${trusted}${more} }`;
  const ramp = (name: string, tls: string, upgrade = 'http'): string =>
    `  - { name: ${name}, type: tcp, listen: "127.0.0.1:0", upgrade: ${upgrade}, tls: { ${tls} } }`;
  const good = `127.0.0.1:${nginx.good}`;
  const toOrigins = ['to-good', 'to-bad', 'to-misnamed', 'to-pinned', 'to-mispinned']
    .map((name) => ramp(name, `certificates: [${first}]`))
    .join('\n');
  const wrongPin = `${'A'.repeat(43)}=`;
  const checked = (name: string, more = ''): string => `tls: { server_name: ${name}, ${trusted}${more} }`;
  return `
hooks: hooks.ts
on_ramps:
${ramp('web', `certificates: [${first}, ${second}]`)}
${ramp('relay', `otherwise: pass, certificates: [${first}]`, 'stream')}
${ramp('strict', `certificates: [${first}], min_version: "1.3"`)}
${ramp('mutual', `certificates: [${first}], clients: { ${trusted} }`)}
${ramp('router', 'otherwise: reject', 'stream')}
${toOrigins}
${ramp('inspect-good', inspect(''), 'http')}
${ramp('inspect-bad', inspect(''), 'http')}
${ramp('inspect-bypass', inspect(', bypass: [n.test]'), 'http')}
off_ramps:
  - { name: plain, type: http, origins: ["127.0.0.1:${origin}"] }
  - { name: good, type: sockets, target: "${good}" }
  - { name: bad, type: sockets, target: "127.0.0.1:${nginx.bad}" }
  - { name: good-tls, type: http, origins: ["${good}"], ${checked('n.test')} }
  - { name: bad-tls, type: http, origins: ["127.0.0.1:${nginx.bad}"], ${checked('m.test')} }
  - { name: misnamed, type: http, origins: ["${good}"], ${checked('z.test')} }
  - { name: pinned, type: http, origins: ["${good}"], ${checked('n.test', `, pins: ["${Nginx.pin}"]`)} }
  - { name: mispinned, type: http, origins: ["${good}"], ${checked('n.test', `, pins: ["${wrongPin}"]`)} }
routes:
${['web', 'strict', 'mutual'].map((name) => `  - { on_ramp: ${name}, via: plain }`).join('\n')}
  - { on_ramp: relay, via: good, upgrade: stream }
  - { on_ramp: router, server_name: n.test, via: good, upgrade: stream }
  - { on_ramp: router, server_name: "*.m.test", via: bad, upgrade: stream }
  - { on_ramp: to-good, via: good-tls }
  - { on_ramp: to-bad, via: bad-tls }
  - { on_ramp: to-misnamed, via: misnamed }
  - { on_ramp: to-pinned, via: pinned }
  - { on_ramp: to-mispinned, via: mispinned }
  - { on_ramp: inspect-good, via: good, upgrade: http }
  - { on_ramp: inspect-bad, via: bad, upgrade: http }
  - { on_ramp: inspect-bypass, via: good, upgrade: http }
`;
}

/** An nginx with TLS: one server that verifies, one whose authority nobody knows. */
class Nginx {
  static pin = '';
  readonly ports: { readonly good: number; readonly bad: number };
  readonly #program: Program;
  readonly #folder: string;

  private constructor(program: Program, folder: string, ports: { good: number; bad: number }) {
    this.#program = program;
    this.#folder = folder;
    this.ports = ports;
  }

  static async start(authority: TestAuthority, other: TestAuthority): Promise<Nginx> {
    const folder = mkdtempSync(join(tmpdir(), 'rampart-nginx-'));
    const good = authority.issue({ name: 'n.test' });
    const bad = other.issue({ name: 'm.test', alternatives: 'DNS:m.test,DNS:*.m.test' });
    Nginx.pin = (
      await runProgram('sh', [
        '-c',
        `openssl x509 -in ${good.certificateFile} -pubkey -noout | openssl pkey -pubin -outform der ` +
          '| openssl dgst -sha256 -binary | base64',
      ])
    ).output.trim();
    const ports = { good: await freePort(), bad: await freePort() };
    writeFileSync(join(folder, 'big'), Buffer.alloc(4 << 20, 'y'));
    const server = (port: number, name: string, of: { certificateFile: string; keyFile: string }): string => `
  server {
    listen 127.0.0.1:${port} ssl;
    ssl_certificate ${of.certificateFile};
    ssl_certificate_key ${of.keyFile};
    location = /big { root ${folder}; }
    location / { return 200 "nginx ${name}\\n"; }
  }`;
    const text = `
daemon off; worker_processes 1; pid ${folder}/pid; error_log ${folder}/error.log;
user root;
events {}
http { access_log off;
  client_body_temp_path ${folder}/b; proxy_temp_path ${folder}/p; fastcgi_temp_path ${folder}/f;
  uwsgi_temp_path ${folder}/u; scgi_temp_path ${folder}/s;
${server(ports.good, 'good', good)}
${server(ports.bad, 'bad', bad)}
}`;
    writeFileSync(join(folder, 'nginx.conf'), text);
    const program = new Program('nginx', ['-c', join(folder, 'nginx.conf'), '-e', join(folder, 'error.log')]);
    await until('nginx answers', async () => {
      const result = await runProgram('curl', ['-sk', `https://127.0.0.1:${ports.bad}/`]);
      return result.output.includes('nginx bad');
    });
    return new Nginx(program, folder, ports);
  }

  async stop(): Promise<void> {
    await this.#program.stop();
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

/** A port that was free just now: nginx cannot be told to choose one. */
async function freePort(): Promise<number> {
  const { createServer } = await import('node:net');
  const server = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}
