import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Command } from 'commander';

import { cliPage } from './cli-page.ts';

test('each command has a section with usage, arguments and options', () => {
  const program = new Command('rampart').description('Proxy.');
  program
    .command('check')
    .description('Finds mistakes.')
    .argument('<file>', 'the config')
    .option('-o, --output <form>', 'text | json', 'text');
  const route = program.command('route').description('Routes.');
  route.command('add').description('Adds one.');
  const page = cliPage(program);
  assert.match(page, /^# Command line\n\nProxy\.\n\n## rampart check\n\nFinds mistakes\./);
  assert.match(page, /```sh\nrampart check \[options\] <file>\n```/);
  assert.match(page, /\| `file` \| the config \|/);
  assert.match(page, /\| `-o, --output <form>` \| text \\\| json \(default: "text"\) \|/);
  assert.match(page, /## rampart route add/);
  assert.doesNotMatch(page, /## rampart route\n/, 'a command that only holds others has no section');
});
