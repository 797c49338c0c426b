/**
 * The layers of `src` as data, each with its reason, and the names that have no place in some of them.
 * `tools/tidy.ts` checks every import against these tables; a change of the architecture is a change here.
 */

/** One layer: a folder and everything below it that is not a layer of its own. */
export interface Layer {
  /** Folder or file below `src`; a trailing `/*` makes each folder in it a layer of its own. */
  readonly folder: string;
  /** A layer imports only from layers of a lower rank, and from itself. */
  readonly rank: number;
  /** Why nothing of the same or a lower rank may import it. */
  readonly reason: string;
  /** May import everything. */
  readonly free?: boolean;
}

/** All layers, lowest first. */
export const LAYERS: readonly Layer[] = [
  { folder: 'base', rank: 0, reason: 'base knows nobody, so that everybody may know it' },

  {
    folder: 'packet',
    rank: 1,
    reason: 'packet formats stay free of descriptors, so one parser serves everybody',
  },
  { folder: 'crypto', rank: 1, reason: 'primitives serve protocols, not devices' },
  { folder: 'contract', rank: 1, reason: 'the contract between control and data plane is types alone' },
  { folder: 'io', rank: 1, reason: 'io moves bytes and knows no format of them' },

  {
    folder: 'protocol/*',
    rank: 2,
    reason: 'a protocol is the rules of its own RFC: what two need goes to packet',
  },
  {
    folder: 'protocol/http2',
    rank: 2.1,
    reason: 'HTTP/2 frames the messages whose semantics (RFC 9110) protocol/http holds',
  },
  {
    folder: 'policy',
    rank: 2,
    reason: 'policy decides on the contract alone, so data plane and explain agree',
  },
  { folder: 'config', rank: 2, reason: 'config is parsed before anything runs' },

  {
    folder: 'proxy/proxy-contract.ts',
    rank: 3.05,
    reason: 'it names how the parts of the proxy meet, so it knows none of them',
  },
  // Inside proxy, hooks and flow serve the ramps; the ramps know each other only through proxy/proxy.ts.
  { folder: 'proxy/stats.ts', rank: 3.06, reason: 'everybody counts, so the counters know nobody' },
  {
    folder: 'proxy/hooks',
    rank: 3.1,
    reason: 'hooks are the public types: they know what is below the proxy only',
  },
  { folder: 'proxy/flow', rank: 3.2, reason: 'the flow table carries verdicts and knows no ramp' },
  { folder: 'proxy/access-log', rank: 3.15, reason: 'every ramp and upgrade may write to it' },
  { folder: 'proxy/tls', rank: 3.25, reason: 'both sides of the proxy may have TLS: it serves all ramps' },
  { folder: 'proxy/tunnel', rank: 3.25, reason: 'a tunnel is an on-ramp and an off-ramp: it serves both' },
  {
    folder: 'proxy/onramp',
    rank: 3.3,
    reason: 'on-ramps, upgrades and off-ramps meet only in proxy/proxy.ts',
  },
  {
    folder: 'proxy/upgrade',
    rank: 3.3,
    reason: 'on-ramps, upgrades and off-ramps meet only in proxy/proxy.ts',
  },
  {
    folder: 'proxy/offramp',
    rank: 3.3,
    reason: 'on-ramps, upgrades and off-ramps meet only in proxy/proxy.ts',
  },
  { folder: 'proxy', rank: 3.4, reason: 'proxy joins the ramps and is composed by roles' },
  { folder: 'agent', rank: 3.4, reason: 'an agent is composed by roles' },
  { folder: 'control/*', rank: 3.4, reason: 'the control plane runs without the data plane' },

  { folder: 'edge', rank: 4, reason: 'roles compose and hold no logic that others could want' },
  { folder: 'connector', rank: 4, reason: 'roles compose and hold no logic that others could want' },
  { folder: 'client', rank: 4, reason: 'roles compose and hold no logic that others could want' },
  { folder: 'control/server', rank: 4, reason: 'roles compose and hold no logic that others could want' },

  { folder: 'cli', rank: 5, reason: 'the command line stands on everything and under nothing' },
  { folder: 'testing', rank: 6, free: true, reason: 'testing is for tests, fuzzers and benches only' },
];

/** Single files that a layer may import against the ranks. */
export const NAMED_EDGES: readonly { readonly from: string; readonly to: string; readonly reason: string }[] =
  [
    {
      from: 'crypto',
      to: 'src/io/ffi/openssl.ts',
      reason: 'OpenSSL is reached through the one folder with node:ffi',
    },
    {
      from: 'crypto',
      to: 'src/io/ffi/openssl-evp.ts',
      reason: 'ciphers and MACs of OpenSSL are reached through the one folder with node:ffi',
    },
  ];

/** The public API: the one file that passes on what others export. */
const INDEX: Layer = { folder: 'index.ts', rank: 7, free: true, reason: 'it is for users of the package' };

/** The layer of a file of `src`, or null when its folder has none. */
export function layerOf(file: string): Layer | null {
  if (file === 'src/index.ts') return INDEX;
  const path = file.slice('src/'.length);
  let best: Layer | null = null;
  for (const layer of LAYERS) {
    if (!matches(layer.folder, path)) continue;
    if (best === null || layer.folder.length > best.folder.length) best = layer;
  }
  return best?.folder.endsWith('/*') ? ownLayer(best, path) : best;
}

function matches(folder: string, path: string): boolean {
  if (folder.endsWith('/*')) return path.startsWith(folder.slice(0, -1));
  return path === folder || path.startsWith(`${folder}/`);
}

const OWN_LAYERS = new Map<string, Layer>();

/**
 * `protocol/*` stands for protocol/http, protocol/gue and so on; each is one object, so that identity
 * compares.
 */
function ownLayer(pattern: Layer, path: string): Layer {
  const folder = path.split('/').slice(0, pattern.folder.split('/').length).join('/');
  let layer = OWN_LAYERS.get(folder);
  if (layer === undefined) {
    layer = { ...pattern, folder };
    OWN_LAYERS.set(folder, layer);
  }
  return layer;
}

/** Modules or names that must not stand in some folders. */
export interface NameBan {
  /** Prefixes of paths that the ban holds for. */
  readonly folders: readonly string[];
  readonly except?: readonly string[];
  readonly modules?: readonly string[];
  /** Searched in code without its comments and strings. */
  readonly code?: RegExp;
  /** Holds in `*.test.ts` too. Default false. */
  readonly testsToo?: boolean;
  readonly reason: string;
}

/** All bans. */
export const BANNED_NAMES: readonly NameBan[] = [
  {
    folders: ['src/', 'tools/', 'bench/', 'tests/', 'fuzz/', 'examples/'],
    except: ['src/io/ffi/'],
    modules: ['node:ffi'],
    testsToo: true,
    reason: 'only src/io/ffi knows the experimental FFI, so that it can be replaced in one place',
  },
  {
    folders: ['src/packet/', 'src/protocol/', 'src/policy/', 'src/contract/', 'src/base/'],
    modules: ['node:net', 'node:dgram', 'node:fs', 'node:fs/promises', 'node:timers', 'node:child_process'],
    // base/ip.ts uses the two pure functions isIPv4 and isIPv6 of node:net.
    except: ['src/base/ip.ts'],
    reason: 'pure cores touch no socket, file or timer: bytes and the time come in as arguments',
  },
  {
    folders: ['src/packet/', 'src/protocol/', 'src/policy/', 'src/contract/', 'src/base/'],
    code: /\b(Date\.now|new Date\(\)|performance\.now|Math\.random|setTimeout|setInterval|setImmediate)\b/,
    reason: 'pure cores have no clock, timer or chance: `now` and randomness come in as arguments',
  },
  {
    folders: ['src/packet/', 'src/protocol/gue/'],
    code: /\.(readUInt|readInt|writeUInt|writeInt|readBigUInt|writeBigUInt)\w*\(/,
    reason: 'Buffer accessors cost four times a DataView access per packet',
  },
];

/** Folder names that say nothing about what belongs inside, with what to do. */
export const FORBIDDEN_FOLDERS: ReadonlyMap<string, string> = new Map([
  ...['util', 'utils', 'common', 'helpers', 'helper', 'lib', 'misc', 'shared'].map(
    (name) => [name, 'it names no subject; name what the files are about'] as const,
  ),
  ['test', "Node's test runner runs every file in a folder of that name; use tests"],
]);
