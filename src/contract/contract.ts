/**
 * `contract` holds the types that cross from one part of a node to another, and later between nodes: the
 * context of traffic, the record of a flow, the events of a trace. Types and frozen constants only; no
 * behaviour.
 *
 * Files: `context.ts`, `record.ts`, `trace.ts`, `agent.ts`.
 */
export {};
