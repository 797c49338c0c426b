import { RampartError } from '#base/error.ts';
import type { RequestVerdict } from '#proxy/hooks/hooks.ts';
import { FieldEdits } from '#protocol/http/edits.ts';
import { HttpFault, httpFaultFact } from '#protocol/http/fault.ts';
import { hasViaPseudonym } from '#protocol/http/forward.ts';
import { Method } from '#protocol/http/http.ts';
import type { MessageHead } from '#protocol/http/message-head.ts';
import { REASON_FIELD, refusalBody, writeOwnResponse } from '#protocol/http/response.ts';

import type { HttpEngine } from './http.ts';
import type { BodyPump } from './http-body-pump.ts';

/** Reasons of this node's own answers: in the Rampart-Reason field, the body, and the trace. */
export const AnswerReason = Object.freeze({
  HookFailed: 'hook_failed',
  Unreachable: 'origin_unreachable',
  ConnectTimeout: 'connect_timeout',
  Overloaded: 'origin_overloaded',
  ResponseTimeout: 'response_timeout',
  RequestTimeout: 'request_timeout',
  OriginClosed: 'origin_closed',
  OriginMalformed: 'origin_malformed',
  UnexpectedUpgrade: 'unexpected_upgrade',
} as const);

/** An answer made here and not by an upstream. */
export interface Answer {
  readonly status: number;
  readonly fields: FieldEdits;
  readonly body: Uint8Array;
  /** For the trace. */
  readonly why: string;
}

/** What the answer's head has to say of the connection and the request. */
export interface AnswerHow {
  readonly engine: HttpEngine;
  /** The request was HEAD. */
  readonly isHead: boolean;
  /** The connection ends behind the answer. */
  readonly close: boolean;
  readonly minorVersion: number;
}

/** Stages an answer in `down`, which has begun for the client. False when there is no room for its head. */
export function stageAnswer(down: BodyPump, answer: Answer, how: AnswerHow): boolean {
  const { engine, isHead } = how;
  const at = down.open();
  if (at < 0) return false;
  const end = writeOwnResponse(engine.io.arena.bytes, at, down.limit, {
    status: answer.status,
    date: engine.date(),
    fields: answer.fields,
    body: answer.body,
    omitBody: true,
    close: how.close,
    keepAlive: how.minorVersion === 0,
  });
  if (end < 0) return false;
  down.extend(end);
  if (!isHead && answer.status !== 204 && answer.status !== 304) down.bodyFrom(answer.body);
  return true;
}

/** A refusal: a status, with its reason where both client and log see it. */
export function refusal(status: number, reason: string): Answer {
  const fields = new FieldEdits();
  // A reason comes from hooks and off-ramps too: only what may stand in a field.
  const text = reason.replace(/[^\x20-\x7e]/g, '?').slice(0, 200);
  fields.set('Content-Type', 'text/plain; charset=utf-8');
  fields.set('Cache-Control', 'no-store');
  fields.set(REASON_FIELD, text);
  return { status, fields, body: refusalBody(status, text), why: text };
}

/** The refusal of a request with a fault; `fault` as a parser returned it. */
export function faultRefusal(fault: number): Answer {
  const { status, name } = httpFaultFact(fault);
  return refusal(status, snakeCase(name));
}

/** The name of a fault as reasons are written: `ContentLengthInvalid` is `content_length_invalid`. */
export function faultReason(fault: number): string {
  return snakeCase(httpFaultFact(fault).name);
}

/** What a hook wants to be answered. @throws RAMP_HOOK_FAILED for fields that may not be written */
export function verdictAnswer(verdict: Exclude<RequestVerdict, { action: 'forward' }>): Answer {
  switch (verdict.action) {
    case 'block':
      return refusal(verdict.status ?? 403, verdict.reason);
    case 'redirect': {
      const fields = new FieldEdits();
      fields.set('Location', verdict.location);
      return {
        status: verdict.status ?? 302,
        fields,
        body: new Uint8Array(0),
        why: `to ${verdict.location}`,
      };
    }
    case 'answer': {
      const fields = new FieldEdits();
      for (const [name, value] of Object.entries(verdict.fields ?? {})) fields.set(name, value);
      const { body } = verdict;
      const bytes = typeof body === 'string' ? new TextEncoder().encode(body) : (body ?? new Uint8Array(0));
      return { status: verdict.status, fields, body: bytes, why: 'by the request hook' };
    }
    default:
      return verdict satisfies never;
  }
}

/**
 * The answer to a request that goes nowhere, whatever hooks would say: one that has come round in a circle
 * (RFC 9110 section 7.6.3), a CONNECT, and one that may go no further (section 7.6.2). Null for all others.
 */
export function earlyAnswer(request: MessageHead, via: Uint8Array): Answer | null {
  if (hasViaPseudonym(request, via)) return faultRefusal(HttpFault.ForwardingLoop);
  if (request.method === Method.Connect) return faultRefusal(HttpFault.MethodRefused);
  if (request.maxForwards !== 0) return null;
  if (request.method === Method.Trace) return faultRefusal(HttpFault.MethodRefused);
  if (request.method !== Method.Options) return null;
  return { status: 200, fields: new FieldEdits(), body: new Uint8Array(0), why: 'Max-Forwards is 0' };
}

/** The answer when no connection to the upstream could be opened. */
export function connectRefusal(error: unknown): Answer {
  const code = error instanceof RampartError ? error.code : null;
  if (code === 'RAMP_TIMEOUT') return refusal(504, AnswerReason.ConnectTimeout);
  if (code === 'RAMP_LIMIT') return refusal(503, AnswerReason.Overloaded);
  return refusal(502, AnswerReason.Unreachable);
}

function snakeCase(name: string): string {
  return name.replace(/[A-Z]/g, (letter, at: number) => `${at === 0 ? '' : '_'}${letter.toLowerCase()}`);
}
