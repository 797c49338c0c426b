import type { Context, Endpoint } from '#contract/context.ts';
import type { StreamFacts } from '#proxy/proxy-contract.ts';
import type { Fields, RequestInfo, ResponseInfo } from '#proxy/hooks/hooks.ts';
import { FieldEdits } from '#protocol/http/edits.ts';
import { type FieldSection, lowerCaseBytes } from '#protocol/http/fields.ts';
import { Method, TargetForm } from '#protocol/http/http.ts';
import type { MessageHead } from '#protocol/http/message-head.ts';
import { equalsIgnoringCase, latin1Text } from '#protocol/http/octets.ts';

/**
 * The fields of a message as a hook sees them: those that came, under what the hook has changed. Strings are
 * made when asked for. Readable after the message has gone on, because its head is kept when there are hooks.
 */
export class MessageFields implements Fields {
  readonly edits = new FieldEdits();
  readonly #section: FieldSection;

  constructor(section: FieldSection) {
    this.#section = section;
  }

  get(name: string): string | undefined {
    return this.getAll(name)[0];
  }

  getAll(name: string): readonly string[] {
    const lower = lowerCaseBytes(name);
    const values = this.#isRemoved(lower) ? [] : this.#section.values(name);
    for (const field of this.edits.added) {
      if (field.name.length === lower.length && equalsIgnoringCase(field.name, 0, lower)) {
        values.push(latin1Text(field.value, 0, field.value.length));
      }
    }
    return values;
  }

  has(name: string): boolean {
    return this.getAll(name).length > 0;
  }

  set(name: string, value: string): void {
    this.edits.set(name, value);
  }

  append(name: string, value: string): void {
    this.edits.append(name, value);
  }

  delete(name: string): void {
    this.edits.remove(name);
  }

  *entries(): Iterable<readonly [name: string, value: string]> {
    for (const entry of this.#section.entries()) {
      if (!this.#isRemoved(lowerCaseBytes(entry[0]))) yield entry;
    }
    for (const { name, value } of this.edits.added) {
      yield [latin1Text(name, 0, name.length).toLowerCase(), latin1Text(value, 0, value.length)];
    }
  }

  #isRemoved(lower: Uint8Array): boolean {
    return this.edits.removed.some(
      (name) => name.length === lower.length && equalsIgnoringCase(name, 0, lower),
    );
  }
}

/** Where a request came from: the parts of its stream that hooks see. */
export interface RequestOrigin {
  readonly context: Context;
  readonly source: Endpoint;
  readonly destination: Endpoint;
  readonly facts?: StreamFacts;
}

/** One request as a hook sees it. */
export class HookRequest implements RequestInfo {
  readonly context: Context;
  readonly source: Endpoint;
  readonly destination: Endpoint;
  readonly method: string;
  readonly scheme: 'http' | 'https';
  readonly authority: string;
  readonly path: string;
  readonly fields: MessageFields;
  state: unknown;

  constructor(origin: RequestOrigin, head: MessageHead) {
    this.context = origin.context;
    this.source = origin.source;
    this.destination = origin.destination;
    this.method = head.methodText;
    this.scheme = head.targetIsSecure || origin.facts?.tls?.encrypted === true ? 'https' : 'http';
    this.authority = head.authority.toLowerCase();
    this.path = forwardedPath(head);
    this.fields = new MessageFields(head.fields);
  }
}

/** The path exactly as it is forwarded: a decision about any other text would be about another resource. */
function forwardedPath(head: MessageHead): string {
  const { path } = head;
  const isEmpty = head.pathEnd === head.pathStart;
  if (isEmpty && head.method === Method.Options && head.targetForm === TargetForm.Absolute) return '*';
  return path.startsWith('?') ? `/${path}` : path;
}

/** One final response head as a hook sees it. */
export class HookResponse implements ResponseInfo {
  readonly request: RequestInfo;
  readonly status: number;
  readonly fields: MessageFields;

  constructor(request: RequestInfo, head: MessageHead) {
    this.request = request;
    this.status = head.status;
    this.fields = new MessageFields(head.fields);
  }
}
