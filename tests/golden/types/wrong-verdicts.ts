/**
 * Each hook below returns something outside its union. `tsc` must refuse every one of them: where it does
 * not, the comment above it is an error itself. Never run.
 */
import { defineHooks } from '#proxy/hooks/hooks.ts';

/** Mistakes in packet-level hooks. */
export const flow = [
  // @ts-expect-error an action of another hook
  defineHooks({ flow: () => ({ action: 'splice' }) }),
  // @ts-expect-error a misspelt action
  defineHooks({ flow: () => ({ action: 'froward' }) }),
  // @ts-expect-error the flow hook must answer at once
  defineHooks({ flow: async () => ({ action: 'drop' }) }),
  // @ts-expect-error not a way to reject
  defineHooks({ flow: () => ({ action: 'reject', with: 'rst' }) }),
  // @ts-expect-error the session hook must answer at once
  defineHooks({ session: async () => ({ action: 'reject' }) }),
];

/** Mistakes in hooks above layer 4. */
export const above = [
  // @ts-expect-error a target without a port
  defineHooks({ stream: () => ({ action: 'splice', to: { host: 'a' } }) }),
  // @ts-expect-error a block without a reason
  defineHooks({ request: () => ({ action: 'block' }) }),
  // @ts-expect-error not a redirect's status
  defineHooks({ request: () => ({ action: 'redirect', location: '/', status: 200 }) }),
  // @ts-expect-error an answer without a status
  defineHooks({ request: async () => ({ action: 'answer' }) }),
  // @ts-expect-error a body is a text or bytes
  defineHooks({ request: () => ({ action: 'answer', status: 200, body: { a: 1 } }) }),
  // @ts-expect-error a context without an account
  defineHooks({ tunnel: () => ({ action: 'accept', context: { vnet: 'production' } }) }),
  // @ts-expect-error true is no verdict
  defineHooks({ egress: () => true }),
];

/** Mistakes that are no verdicts. */
export const other = [
  // @ts-expect-error there is no such hook
  defineHooks({ requets: () => undefined }),
  defineHooks({
    request: (request) => {
      // @ts-expect-error the path of a request is read-only
      request.path = '/';
      return undefined;
    },
  }),
  defineHooks({
    flow: ({ context }) => {
      // @ts-expect-error the account of a context is read-only
      context.account = 'other';
      return undefined;
    },
  }),
  // @ts-expect-error settings have the type that the application gives them
  defineHooks<undefined, { limit: number }>({ start: (settings) => void settings.limti }),
];
