import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';

import { TestAuthority } from '#testing/certificates.ts';

import { CertificateMinter } from './certificate-mint.ts';
import { certificateHolder, certificateNames, publicKeyPin } from './certificate.ts';

const authority = new TestAuthority();
const other = new TestAuthority('another authority');
after(() => {
  authority.close();
  other.close();
});

test('the names of a certificate are its alternative names, or that of its subject', () => {
  const several = authority.issue({ name: 'x.test', alternatives: 'DNS:A.test,DNS:*.b.test,IP:127.0.0.1' });
  assert.deepEqual(certificateNames(several.certificate), ['a.test', '*.b.test']);
  const one = authority.issue({ name: 'x.test', alternatives: 'IP:127.0.0.1' });
  assert.deepEqual(certificateNames(one.certificate), ['x.test']);
});

test('the holder of a certificate is read from the part that is asked for', () => {
  const { certificate } = authority.issue({
    name: 'alice',
    usage: 'clientAuth',
    subject: '/OU=ops/OU=dev',
    alternatives: 'email:alice@a.test,URI:spiffe://a.test/alice,DNS:laptop.a.test',
  });
  const der = new X509Certificate(certificate).raw;
  assert.deepEqual(certificateHolder(der, 'common_name'), { name: 'alice', units: ['ops', 'dev'] });
  assert.equal(certificateHolder(der, 'email').name, 'alice@a.test');
  assert.equal(certificateHolder(der, 'uri').name, 'spiffe://a.test/alice');
  assert.equal(certificateHolder(der, 'dns').name, 'laptop.a.test');
});

test('a name cannot smuggle another kind of name in', () => {
  const { certificate } = authority.issue({
    name: 'mallory',
    usage: 'clientAuth',
    alternatives: 'URI:http://a.test/?email:root@a.test',
  });
  const der = new X509Certificate(certificate).raw;
  assert.equal(certificateHolder(der, 'email').name, '');
});

test('the pin of a certificate is the one that the openssl program makes', () => {
  const { certificate, certificateFile } = authority.issue({ name: 'a.test' });
  const spki = execFileSync('sh', [
    '-c',
    `openssl x509 -in ${certificateFile} -pubkey -noout | openssl pkey -pubin -outform der ` +
      '| openssl dgst -sha256 -binary | base64',
  ]);
  assert.equal(publicKeyPin(new X509Certificate(certificate).raw), spki.toString().trim());
});

test('a minted certificate is accepted by the openssl program, for its name or address only', async () => {
  const minter = await CertificateMinter.open(authority);
  for (const [name, flag] of [
    ['app.test', '-verify_hostname'],
    ['192.0.2.7', '-verify_ip'],
  ] as const) {
    const file = join(authority.folder, 'minted.pem');
    writeFileSync(file, await minter.mint(name, Date.now()));
    const verify = (value: string): string =>
      execFileSync(
        'openssl',
        ['verify', '-CAfile', authority.certificateFile, '-purpose', 'sslserver', flag, value, file],
        {
          stdio: 'pipe',
        },
      ).toString();
    assert.match(verify(name), /OK/);
    assert.throws(() => verify(flag === '-verify_ip' ? '192.0.2.8' : 'other.test'));
  }
});

test('an authority with the key of another, or that is none, is refused', async () => {
  const mixed = { certificate: authority.certificate, key: other.key };
  await assert.rejects(CertificateMinter.open(mixed), { code: 'RAMP_CERTIFICATE', message: /not that of/ });
  const leaf = authority.issue({ name: 'a.test' });
  await assert.rejects(CertificateMinter.open(leaf), { code: 'RAMP_CERTIFICATE', message: /no authority/ });
});
