/** Makes the reference page of the command line from the program itself. */
import type { Command } from 'commander';

/** One section per command, with its usage, arguments and options as `--help` has them. */
export function cliPage(program: Command): string {
  const sections = commandsOf(program).map(({ words, command }) => section(words, command));
  return [`# Command line`, program.description(), ...sections].filter((part) => part !== '').join('\n\n');
}

interface NamedCommand {
  readonly words: string;
  readonly command: Command;
}

/** All commands that do something, depth first; a command that only holds others has no section. */
function commandsOf(command: Command, before = ''): NamedCommand[] {
  const words = `${before}${command.name()}`;
  const inner = command.commands
    .filter((child) => child.name() !== 'help')
    .flatMap((child) => commandsOf(child, `${words} `));
  return inner.length > 0 ? inner : [{ words, command }];
}

function section(words: string, command: Command): string {
  const help = command.createHelp();
  const usage = `${words} ${command.usage()}`.trim();
  const parts = [`## ${words}`, command.description(), `\`\`\`sh\n${usage}\n\`\`\``];
  const argumentRows = help
    .visibleArguments(command)
    .map((argument) => row(help.argumentTerm(argument), help.argumentDescription(argument)));
  const optionRows = help
    .visibleOptions(command)
    .filter((option) => option.long !== '--help')
    .map((option) => row(help.optionTerm(option), help.optionDescription(option)));
  const rows = [...argumentRows, ...optionRows];
  if (rows.length > 0) parts.push(['| | |', '| --- | --- |', ...rows].join('\n'));
  return parts.filter((part) => part !== '').join('\n\n');
}

function row(term: string, text: string): string {
  return `| \`${term}\` | ${text.replaceAll('|', '\\|')} |`;
}
