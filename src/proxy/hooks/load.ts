import { registerHooks } from 'node:module';
import { existsSync } from 'node:fs';
import { pathToFileURL } from 'node:url';

import { RampartError } from '#base/error.ts';
import { didYouMean } from '#base/nearest.ts';

import type { Hooks } from './hooks.ts';

/** The hooks that this version calls. */
export const HOOK_NAMES = Object.freeze([
  'start',
  'tunnel',
  'flow',
  'stream',
  'tls',
  'session',
  'request',
  'response',
  'egress',
  'end',
] as const satisfies readonly (keyof Hooks)[]);

/** One of them. */
export type HookName = (typeof HOOK_NAMES)[number];

/**
 * Hooks of the design that this version does not call: naming one is an error, for it would silently decide
 * nothing.
 */
const HOOKS_TO_COME: readonly string[] = Object.freeze(['ssh', 'dns']);

/**
 * Loads the application: the default export of a TypeScript file, whose types Node strips. Inside it,
 * `rampart` is this very program, wherever the file lies.
 *
 * @param file absolute path.
 * @throws RampartError RAMP_HOOKS when the file cannot be loaded or its default export is not a set of hooks.
 */
export async function loadHooks(file: string): Promise<Hooks> {
  if (!existsSync(file)) {
    throw failure(`there is no hooks file ${file}; expected the TypeScript file that the config names`);
  }
  let module: { readonly default?: unknown };
  try {
    module = await importApplication(file);
  } catch (error) {
    const reason = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
    throw failure(`the hooks file ${file} cannot be loaded: ${reason}`, error);
  }
  return checkHooks(module.default, file);
}

/** Checks a default export. @throws RampartError RAMP_HOOKS with everything that is wrong, a line each. */
export function checkHooks(value: unknown, file: string): Hooks {
  if (value === undefined) {
    throw failure(`${file} has no default export; expected \`export default defineHooks({ … })\``);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    const kind = Array.isArray(value) ? 'a list' : value === null ? 'null' : `a ${typeof value}`;
    throw failure(`the default export of ${file} is ${kind}; expected an object of hooks`);
  }
  const mistakes: string[] = [];
  for (const [name, hook] of Object.entries(value)) {
    if (HOOKS_TO_COME.includes(name)) {
      mistakes.push(
        `the hook "${name}" is not called by this version; expected only ${HOOK_NAMES.join(', ')}`,
      );
    } else if (!(HOOK_NAMES as readonly string[]).includes(name)) {
      const hint = didYouMean(name, HOOK_NAMES) || `; expected only ${HOOK_NAMES.join(', ')}`;
      mistakes.push(`there is no hook "${name}"${hint}`);
    } else if (hook !== undefined && typeof hook !== 'function') {
      mistakes.push(`the hook "${name}" is a ${typeof hook}; expected a function`);
    }
  }
  if (mistakes.length > 0) throw failure(mistakes.map((mistake) => `${file}: ${mistake}`).join('\n'));
  return value as Hooks;
}

async function importApplication(file: string): Promise<{ readonly default?: unknown }> {
  const url = pathToFileURL(file).href;
  const own = new URL('../../index.ts', import.meta.url).href;
  const registration = registerHooks({
    resolve(specifier, context, next) {
      if (specifier === 'rampart') return { url: own, format: 'module-typescript', shortCircuit: true };
      // A file outside any package is a module all the same: Node need not guess and warn.
      if (specifier === url) return { url, format: 'module-typescript', shortCircuit: true };
      return next(specifier, context);
    },
  });
  try {
    return await import(url);
  } finally {
    registration.deregister();
  }
}

function failure(message: string, cause?: unknown): RampartError {
  return new RampartError('RAMP_HOOKS', message, {
    side: 'config',
    ...(cause === undefined ? {} : { cause }),
  });
}
