/** Writes docs/reference/config.md from the schemas, so that the page cannot say anything else. */
import { formatLimit, LIMITS, limitKey } from './limits.ts';
import { configJsonSchema } from './schema.ts';

/** The parts of JSON Schema that the config's schema uses. */
interface Schema {
  readonly type?: string;
  readonly description?: string;
  readonly default?: unknown;
  readonly const?: unknown;
  readonly enum?: readonly unknown[];
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly required?: readonly string[];
  readonly items?: Schema;
  readonly oneOf?: readonly Schema[];
  readonly anyOf?: readonly Schema[];
  readonly additionalProperties?: boolean | Schema;
  readonly minimum?: number;
  readonly maximum?: number;
}

/** The whole page, in Markdown. */
export function configReference(): string {
  const properties = (configJsonSchema() as Schema).properties ?? {};
  const sections = [opening(properties)];
  sections.push(listOfTypes('on_ramps', properties.on_ramps as Schema));
  sections.push(listOfTypes('off_ramps', properties.off_ramps as Schema));
  sections.push(routes(properties.routes as Schema));
  sections.push(contextSection(properties));
  sections.push(limits());
  sections.push(`## telemetry\n\n${keyTable(properties.telemetry as Schema)}`);
  return `${sections.join('\n\n')}\n`;
}

function opening(properties: Readonly<Record<string, Schema>>): string {
  const rows = Object.entries(properties).map(
    ([key, schema]) => `| \`${key}\` | ${cell(schema.description ?? '')}${defaultText(schema)} |`,
  );
  return `# Config

One YAML file. Unknown keys are mistakes; every mistake is told with file, line and column, all of them at
once, and nothing is started. \`rampart check FILE\` checks a file and its hooks without starting anything.
For help while you type, begin the file with

\`\`\`yaml
# yaml-language-server: $schema=/path/to/rampart/docs/reference/config.schema.json
\`\`\`

| key | meaning |
| --- | --- |
${rows.join('\n')}

Addresses are \`10.0.0.1:80\`, \`[fd00::1]:80\`, \`:80\` (all addresses) or \`unix:/path\`. Durations are
\`250ms\`, \`30s\`, \`5m\`, \`1h30m\`; sizes \`512\`, \`64KiB\`, \`1MiB\`. Names have letters, digits, \`.\`,
\`_\` and \`-\`, at most 63.`;
}

function listOfTypes(key: string, list: Schema): string {
  const parts = [`## ${key}\n\n${list.description} A list; each element has a \`type\`.`];
  for (const option of list.items?.oneOf ?? []) {
    const type = String(option.properties?.type?.const);
    parts.push(`### ${key}: ${type}\n\n${option.description}\n\n${keyTable(option)}`);
  }
  return parts.join('\n\n');
}

function routes(list: Schema): string {
  return `## routes

${list.description} A list.

${keyTable(list.items as Schema)}

Of the routes that match a flow, the longest prefix wins; then a route with ports before one with only a
protocol before one with neither; then one that names an on-ramp before one that does not. The order in the
file means nothing. The same prefix may stand in any number of vnets; twice in one, for the same protocol,
ports and on-ramp, is a mistake.

A TUN device or a SEQPACKET tunnel cannot tell networks apart, so an off-ramp of these types carries one
network only: routes of two networks that name it are a mistake.`;
}

function contextSection(properties: Readonly<Record<string, Schema>>): string {
  const tun = properties.on_ramps?.items?.oneOf?.[0];
  const context = tun?.properties?.context as Schema;
  return `## context\n\n${context.description}\n\n${keyTable(context)}`;
}

function limits(): string {
  const rows = Object.entries(LIMITS).map(([limit, definition]) => {
    const range = `${formatLimit(definition, definition.min)} to ${formatLimit(definition, definition.max)}`;
    const byDefault = formatLimit(definition, definition.default);
    return (
      `| \`${limitKey(limit)}\` | ${byDefault} | ${range} | ${cell(definition.limits)} | ` +
      `${cell(definition.reason)} | ${cell(definition.reached)} |`
    );
  });
  return `## limits

Everything has a limit. Each has a default that suits most.

| key | default | range | limits | why this default | when it is reached |
| --- | --- | --- | --- | --- | --- |
${rows.join('\n')}`;
}

function keyTable(schema: Schema): string {
  const required = new Set(schema.required ?? []);
  const rows = Object.entries(schema.properties ?? {}).map(([key, value]) => {
    const need = required.has(key) ? ' Needed.' : '';
    return (
      `| \`${key}\` | ${cell(typeText(value))} | ` +
      `${cell(value.description ?? '')}${need}${defaultText(value)} |`
    );
  });
  return ['| key | value | meaning |', '| --- | --- | --- |', ...rows].join('\n');
}

function typeText(schema: Schema): string {
  if (schema.const !== undefined) return `\`${String(schema.const)}\``;
  if (schema.enum !== undefined) return schema.enum.map((value) => `\`${String(value)}\``).join(', ');
  const options = schema.anyOf ?? schema.oneOf;
  if (options !== undefined) return options.map(typeText).join(' or ');
  if (schema.type === 'array') return `list of ${typeText(schema.items ?? {})}`;
  if (schema.type === 'object') return 'mapping';
  if (schema.type === 'boolean') return '`true` or `false`';
  if (schema.type === 'string') return 'text';
  if (schema.type !== 'integer') return schema.type ?? 'anything';
  const { minimum = Number.MIN_SAFE_INTEGER, maximum } = schema;
  return minimum === Number.MIN_SAFE_INTEGER ? 'number' : `${minimum} to ${maximum}`;
}

/** Default of a value, where its description does not say it itself. */
function defaultText(schema: Schema): string {
  const { description = '', default: byDefault } = schema;
  if (byDefault === undefined || description.includes('Default')) return '';
  if (Array.isArray(byDefault) || typeof byDefault === 'object') {
    return JSON.stringify(byDefault) === '[]' || JSON.stringify(byDefault) === '{}' ? ' Default: none.' : '';
  }
  return ` Default: \`${String(byDefault)}\`.`;
}

/** Text that stays inside its cell of a table. */
function cell(text: string): string {
  return text.replaceAll('|', '\\|').replaceAll('\n', ' ');
}
