import { RampartError } from '#base/error.ts';

import { FieldKind, fieldKindOf, HOP_BY_HOP } from './field-kind.ts';
import { latin1Bytes, OCTET_CLASS, TOKEN, VALUE } from './octets.ts';

/** One field to add, as bytes. */
export interface AddedField {
  readonly name: Uint8Array;
  readonly value: Uint8Array;
}

/**
 * What a hook wants changed in the fields of a message that is forwarded. Names and values are checked here,
 * so that nothing a hook passes on from elsewhere can end a line or forge framing (RFC 9110 sections 5.1 and
 * 5.5).
 */
export class FieldEdits {
  /** Lower-case names of fields that are left out. */
  readonly removed: Uint8Array[] = [];
  /** Fields written behind the others, in order. */
  readonly added: AddedField[] = [];
  #bytes = 0;

  /** No edits. */
  get isEmpty(): boolean {
    return this.removed.length === 0 && this.added.length === 0;
  }

  /** Bytes that the added fields take at most. */
  get addedBytes(): number {
    return this.#bytes;
  }

  /**
   * Replaces all fields of this name by one. @throws RAMP_HOOK_FAILED for a name or value that may not be
   * written
   */
  set(name: string, value: string): void {
    this.remove(name);
    this.append(name, value);
  }

  /** Adds a field beside those of the same name. @throws RAMP_HOOK_FAILED as `set` */
  append(name: string, value: string): void {
    const field = { name: checkedName(name), value: checkedValue(name, value) };
    this.added.push(field);
    this.#bytes += field.name.length + field.value.length + 4;
  }

  /**
   * Leaves out all fields of this name, also those added before. @throws RAMP_HOOK_FAILED for a name of
   * framing
   */
  remove(name: string): void {
    const lower = latin1Bytes(checkedText(name.toLowerCase()));
    checkedName(name);
    for (let i = this.added.length - 1; i >= 0; i--) {
      const field = this.added[i] as AddedField;
      if (!sameName(field.name, lower)) continue;
      this.#bytes -= field.name.length + field.value.length + 4;
      this.added.splice(i, 1);
    }
    this.removed.push(lower);
  }

  clear(): void {
    this.removed.length = 0;
    this.added.length = 0;
    this.#bytes = 0;
  }
}

function sameName(name: Uint8Array, lower: Uint8Array): boolean {
  if (name.length !== lower.length) return false;
  for (let i = 0; i < name.length; i++) if (((name[i] as number) | 0x20) !== lower[i]) return false;
  return true;
}

function checkedName(name: string): Uint8Array {
  const bytes = latin1Bytes(checkedText(name));
  const isToken = bytes.length > 0 && bytes.every((octet) => ((OCTET_CLASS[octet] as number) & TOKEN) !== 0);
  if (!isToken) {
    throw new RampartError('RAMP_HOOK_FAILED', `${JSON.stringify(name)} is not a field name; use a token`);
  }
  const kind = fieldKindOf(bytes, 0, bytes.length);
  if (kind === FieldKind.Host || HOP_BY_HOP[kind] === 1) {
    throw new RampartError(
      'RAMP_HOOK_FAILED',
      `the field ${name} belongs to the proxy; change the host, body ` +
        `or connection through their own properties`,
    );
  }
  return bytes;
}

function checkedValue(name: string, value: string): Uint8Array {
  const bytes = latin1Bytes(checkedText(value));
  if (!bytes.every((octet) => ((OCTET_CLASS[octet] as number) & VALUE) !== 0)) {
    throw new RampartError(
      'RAMP_HOOK_FAILED',
      `the value for ${name} holds a control character; only visible characters, space and tab can be sent`,
    );
  }
  return bytes;
}

function checkedText(text: string): string {
  for (let i = 0; i < text.length; i++) {
    if (text.charCodeAt(i) > 0xff) {
      throw new RampartError(
        'RAMP_HOOK_FAILED',
        `${JSON.stringify(text.slice(0, 40))} holds characters above U+00FF; encode them before`,
      );
    }
  }
  return text;
}
