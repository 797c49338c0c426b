import { type BodyTransform, defineHooks } from 'rampart';

const METHODS = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'];
const SCANNERS = /sqlmap|nikto|masscan/i;

/** Sixteen digits, in groups or not: a card number. Its last four stay. */
const CARD = /\b(?:\d{4}[ -]?){3}(\d{4})\b/g;
/** The end of a chunk that could be the beginning of one. */
const BEGUN = /[\d -]{1,19}$/;

/** Masks card numbers, also those that are cut in two by the way that the body came. */
function maskCards(): BodyTransform {
  let kept = '';
  return (chunk) => {
    let text = kept + (chunk === null ? '' : Buffer.from(chunk).toString('latin1'));
    kept = chunk === null ? '' : (BEGUN.exec(text)?.[0] ?? '');
    text = text.slice(0, text.length - kept.length).replaceAll(CARD, '**** **** **** $1');
    return Buffer.from(text, 'latin1');
  };
}

export default defineHooks({
  request({ method, path, fields }) {
    if (!METHODS.includes(method))
      return { action: 'block', status: 405, reason: `${method} is not used here` };
    if (path.startsWith('/admin')) return { action: 'block', reason: 'admin pages are not public' };
    if (SCANNERS.test(fields.get('User-Agent') ?? '')) return { action: 'block', reason: 'a scanner' };
    if (path === '/old') return { action: 'redirect', location: '/new', status: 308 };
    if (path === '/health') return { action: 'answer', status: 200, body: 'ok\n' };
    // The body has to come as text, or there is nothing to look for in it.
    fields.delete('Accept-Encoding');
    return undefined;
  },

  response({ fields }) {
    fields.delete('X-Powered-By');
    fields.set('X-Content-Type-Options', 'nosniff');
    const isText = fields.get('Content-Type')?.startsWith('text/') === true;
    return isText ? { action: 'forward', transformBody: maskCards() } : undefined;
  },
});
