// tidy: allow banned: the manifest is part of the program, as constant as its code.
import { readFileSync } from 'node:fs';

let version: string | null = null;

/** Version of this package, from its package.json. */
export function packageVersion(): string {
  if (version === null) {
    const manifest = readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
    version = (JSON.parse(manifest) as { readonly version: string }).version;
  }
  return version;
}
