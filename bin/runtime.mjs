/**
 * Finds, installs and starts the pinned Node. Plain JavaScript without dependencies: any Node from 20 on runs
 * it, and the Node that runs npm is never the one that runs Rampart.
 */
import { spawn, spawnSync } from 'node:child_process';
import { accessSync, constants, existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { homedir, tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The folder that holds package.json. */
export const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));

/**
 * Flags that every Rampart process has: the FFI module is experimental, and saying so at each start helps
 * nobody.
 */
export const NODE_FLAGS = ['--disable-warning=ExperimentalWarning'];

const SIGNALS_FORWARDED = ['SIGTERM', 'SIGHUP', 'SIGQUIT', 'SIGUSR2', 'SIGWINCH', 'SIGCONT'];
const ARCHITECTURES = ['x64', 'arm64'];
/** A signal that comes again within this time is the same one by another way. */
const SIGNAL_REPEAT_MS = 300;
/** How often a program started by npm looks whether npm is still there. */
const PARENT_WATCH_MS = 1000;

/** Prints one line for a person and ends with `code`. */
export function refuse(message, code = 1) {
  process.stderr.write(`rampart: ${message}\n`);
  process.exit(code);
}

/** Ends the process with a clear line where Rampart cannot run at all. */
export function requireSupportedPlatform(platform = process.platform, architecture = process.arch) {
  const mistake = platformMistake(platform, architecture);
  if (mistake !== null) refuse(mistake);
}

/** What is wrong with this machine, or null. */
export function platformMistake(platform, architecture) {
  if (platform !== 'linux') {
    return `this machine runs ${platform}, but Rampart needs Linux: use a virtual machine or a container`;
  }
  if (!ARCHITECTURES.includes(architecture)) {
    return `this processor is ${architecture}, but the pinned Node is for ${ARCHITECTURES.join(', ')}`;
  }
  return null;
}

/** Path of the pinned Node's executable, or null when it is not installed. */
export function pinnedNode(root = ROOT, architecture = process.arch) {
  const name = `node-linux-${architecture}`;
  const beside = join(root, 'node_modules', name, 'bin', 'node');
  if (existsSync(beside)) return beside;
  try {
    // Installed as a dependency of something else: npm may have hoisted the runtime above this package.
    const manifest = createRequire(join(root, 'package.json')).resolve(`${name}/package.json`);
    const hoisted = join(dirname(manifest), 'bin', 'node');
    return existsSync(hoisted) ? hoisted : null;
  } catch {
    return null;
  }
}

/**
 * Compares package-lock.json with what npm last wrote into node_modules. Contents are compared rather than
 * times, because a checkout sets times as it likes.
 *
 * @param options.development whether packages that only developers need count too.
 * @returns why an installation is needed, or null.
 */
export function whyInstall(root = ROOT, { development = true, architecture = process.arch } = {}) {
  if (!existsSync(join(root, 'node_modules'))) return 'node_modules is missing';
  const runtime = `node-linux-${architecture}`;
  if (!existsSync(join(root, 'node_modules', runtime, 'bin', 'node'))) return `${runtime} is missing`;
  if (!existsSync(join(root, 'package-lock.json'))) return null;
  const wanted = readPackages(join(root, 'package-lock.json'));
  const present = readPackages(join(root, 'node_modules', '.package-lock.json'));
  for (const [path, entry] of Object.entries(wanted)) {
    if (path === '' || (entry.dev && !development)) continue;
    const installed = present[path];
    // An optional package may be missing because it is made for another platform.
    if (installed === undefined && (entry.optional || entry.devOptional)) continue;
    if (installed?.version !== entry.version || installed?.integrity !== entry.integrity) {
      return `${path.slice('node_modules/'.length)} is not at ${entry.version}`;
    }
  }
  return null;
}

function readPackages(path) {
  try {
    return JSON.parse(readFileSync(path, 'utf8')).packages ?? {};
  } catch {
    return {};
  }
}

/** Installs the packages of the lockfile when they are missing or are others. Says one line when it does. */
export function ensureInstalled(root = ROOT, options = {}) {
  const reason = whyInstall(root, options);
  if (reason === null) return;
  if (
    !isWritable(root) ||
    (existsSync(join(root, 'node_modules')) && !isWritable(join(root, 'node_modules')))
  ) {
    refuse(
      `${reason}, and ${root} is not writable: run \`npm ci --ignore-scripts\` there as its owner, once`,
    );
  }
  const verb = existsSync(join(root, 'package-lock.json')) ? 'ci' : 'install';
  process.stderr.write(`rampart: ${reason}: installing the pinned Node and packages (npm ${verb}) …\n`);
  // An account without a home folder has no place for npm's cache.
  const cache = isWritable(homedir()) ? null : mkdtempSync(join(tmpdir(), 'rampart-npm-'));
  const [command, first] = npmCommand();
  // npm's own progress goes to nobody; what goes wrong is shown. Scripts of packages never run.
  const arguments_ = [...first, verb, '--ignore-scripts', '--include=dev', '--include=optional'];
  arguments_.push('--no-audit', '--no-fund', '--prefer-offline', '--loglevel=error');
  if (cache !== null) arguments_.push(`--cache=${cache}`);
  const result = spawnSync(command, arguments_, { cwd: root, stdio: ['ignore', 'ignore', 'inherit'] });
  if (cache !== null) rmSync(cache, { recursive: true, force: true });
  if (result.error) refuse(`npm could not be started (${result.error.message}): install npm, then try again`);
  if (result.status !== 0) {
    refuse(`npm ${verb} failed with ${result.status ?? result.signal}: see above, then try again`);
  }
  if (pinnedNode(root) === null)
    refuse(`npm ${verb} did not install node-linux-${process.arch}: remove node_modules`);
}

function npmCommand() {
  const script = process.env.npm_execpath;
  // npx and other package managers set the same variable, so its name decides.
  if (script?.endsWith('npm-cli.js') && existsSync(script)) return [process.execPath, [script]];
  return ['npm', []];
}

function isWritable(path) {
  try {
    accessSync(path, constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

/**
 * The environment of a Rampart process: compiled code is kept beside the packages, so the second start is
 * fast.
 */
export function runtimeEnvironment(root = ROOT, environment = process.env) {
  const folder = join(root, 'node_modules', '.cache', 'compiled');
  return { NODE_COMPILE_CACHE: folder, ...environment };
}

/**
 * Runs the pinned Node with `arguments_` and resolves to its exit code. Standard streams are shared, signals
 * are passed on, and a child that died by a signal makes this process die by the same one.
 */
export function run(arguments_, { root = ROOT, cwd = process.cwd() } = {}) {
  const node = pinnedNode(root);
  if (node === null) refuse(`the pinned Node is missing: run \`npm ci --ignore-scripts\` in ${root}`);
  return runProgram(node, [...NODE_FLAGS, ...arguments_], { root, cwd });
}

/** Like `run`, for a program that is not JavaScript. */
export function runProgram(program, arguments_, { root = ROOT, cwd = process.cwd() } = {}) {
  return new Promise((resolve) => {
    const child = spawn(program, arguments_, { cwd, stdio: 'inherit', env: runtimeEnvironment(root) });
    const stop = forwardSignals(child);
    child.on('error', (error) => {
      const glibc =
        error.code === 'ENOENT' ? '; it needs glibc 2.28 or later, which this system seems to lack' : '';
      refuse(`${basename(program)} could not be started (${error.message})${glibc}`);
    });
    child.on('exit', (code, signal) => {
      stop();
      if (signal === null) resolve(code ?? 1);
      else process.kill(process.pid, signal);
    });
  });
}

function forwardSignals(child) {
  let last = '';
  let lastMs = 0;
  // npm and a whole group's signal bring the same one twice: a program may take the second as "stop at once".
  const forward = (signal) => {
    const nowMs = performance.now();
    if (signal !== last || nowMs - lastMs > SIGNAL_REPEAT_MS) child.kill(signal);
    last = signal;
    lastMs = nowMs;
  };
  // A terminal sends Ctrl-C to the whole group, the child included: one more would read as "stop at once".
  const interrupt = (signal) => {
    if (!process.stdin.isTTY) forward(signal);
  };
  for (const signal of SIGNALS_FORWARDED) process.on(signal, forward);
  process.on('SIGINT', interrupt);
  const watch = process.env.npm_lifecycle_event === undefined ? undefined : watchParent(child);
  return () => {
    for (const signal of SIGNALS_FORWARDED) process.off(signal, forward);
    process.off('SIGINT', interrupt);
    clearInterval(watch);
  };
}

/**
 * An npm that was killed cannot pass anything on; what it had started must not stay behind with its
 * namespaces.
 */
function watchParent(child) {
  const parent = process.ppid;
  return setInterval(() => {
    if (process.ppid !== parent) child.kill('SIGTERM');
  }, PARENT_WATCH_MS).unref();
}
