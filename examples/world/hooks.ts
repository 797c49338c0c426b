import { defineHooks } from 'rampart';

/** PostgreSQL: only database administrators may reach it. */
const DATABASE_PORT = 5432;

export default defineHooks({
  // Once per flow, on its first packet: what is refused here sends nothing onwards, not even a SYN.
  flow({ context, destination }) {
    const groups = context.identity?.groups ?? [];
    if (destination.port === DATABASE_PORT && !groups.includes('dba')) {
      return { action: 'reject', with: 'reset', reason: 'databases are for the group dba' };
    }
    return undefined;
  },

  // Once per HTTP request, when the flow has become a stream and the stream has become HTTP.
  request({ context, path, fields }) {
    if (path.startsWith('/admin')) {
      return { action: 'block', reason: 'admin pages are closed to laptops' };
    }
    fields.set('X-Rampart-User', context.identity?.user ?? 'nobody');
    return undefined;
  },

  response({ request, fields }) {
    fields.set('X-Rampart-Vnet', request.context.vnet);
    return undefined;
  },
});
