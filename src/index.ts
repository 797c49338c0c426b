/** Rampart's public API: what a hooks file imports. */
export type { RampartError } from '#base/error.ts';
export type { Context, Endpoint, FlowProtocol, Identity, Target } from '#contract/context.ts';
export type { CloseReason, FlowRecord } from '#contract/record.ts';
export type { DetectedProtocol } from '#protocol/detect/detect.ts';
export type { ProxyTls } from '#protocol/proxy-protocol/header.ts';
export type { ClientHello } from '#protocol/tls/client-hello.ts';
export type * from '#proxy/hooks/hooks.ts';
export type { StreamFacts } from '#proxy/proxy-contract.ts';
export { defineHooks } from '#proxy/hooks/hooks.ts';
