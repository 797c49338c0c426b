import { defineHooks } from 'rampart';

/** What can be decided only about a request: which file goes out, to which path. */
export default defineHooks({
  request({ scheme, method, path, fields }) {
    if (scheme !== 'https') return { action: 'block', reason: 'only TLS is let through' };
    if (method === 'PUT' && path.startsWith('/upload')) {
      return { action: 'block', reason: 'uploads are not allowed here' };
    }
    fields.set('x-inspected', 'yes');
    return undefined;
  },
});
