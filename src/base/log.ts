/** How much a log line matters. */
export type LogLevel = 'info' | 'warning' | 'error';

/** Further facts of a log line, by name. Never a secret. */
export type LogFields = Readonly<Record<string, string | number | boolean | null>>;

/** Where a process says what it does: one line each. */
export interface Log {
  info(text: string, fields?: LogFields): void;
  warning(text: string, fields?: LogFields): void;
  error(text: string, fields?: LogFields): void;
}

/** What a log is made of. */
export interface LogOptions {
  readonly format: 'text' | 'json';
  /** Takes a whole line with its end. */
  readonly write: (line: string) => void;
  /** Unix milliseconds. */
  readonly now: () => number;
}

/** A log that writes a line for a person or a JSON object, by `format`. */
export function createLog(options: LogOptions): Log {
  const line = options.format === 'json' ? jsonLine : textLine;
  const put = (level: LogLevel, text: string, fields: LogFields): void => {
    options.write(`${line({ at: new Date(options.now()).toISOString(), level, text }, fields)}\n`);
  };
  return Object.freeze({
    info: (text: string, fields: LogFields = {}) => put('info', text, fields),
    warning: (text: string, fields: LogFields = {}) => put('warning', text, fields),
    error: (text: string, fields: LogFields = {}) => put('error', text, fields),
  });
}

/** What every line begins with. */
interface LogHead {
  readonly at: string;
  readonly level: LogLevel;
  readonly text: string;
}

function jsonLine(head: LogHead, fields: LogFields): string {
  return JSON.stringify({ ...fields, ...head });
}

function textLine(head: LogHead, fields: LogFields): string {
  const level = head.level === 'info' ? '' : `${head.level}: `;
  let text = `${head.at.slice(11, 23)} ${level}${visible(head.text)}`;
  for (const [name, value] of Object.entries(fields)) {
    const word = visible(String(value));
    text += ` ${name}=${word === '' || /[\s"=]/.test(word) ? JSON.stringify(word) : word}`;
  }
  return text;
}

/**
 * Without control characters: nobody forges a second line, or moves a terminal's cursor. Line ends of texts
 * stay, indented.
 */
function visible(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for.
  return text.replaceAll('\n', '\n  ').replace(/[\0-\x09\x0b-\x1f\x7f-\x9f]/g, '\ufffd');
}
