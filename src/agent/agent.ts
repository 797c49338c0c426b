/**
 * `agent` lets a person look into a running process: a control socket over which `rampart status`, `top`,
 * `trace` and `explain` ask. It reads, it changes nothing, and nobody who watches can hold up a packet.
 *
 * The socket is a Unix stream of mode 0600: who may open it may see everything. On it go lines of JSON. A
 * request is `{ "id": 1, "ask": "status" }`; its answer has the same id. `watch` answers with any number of
 * lines until the connection ends. Files: `messages.ts` (the lines), `server.ts`, `client.ts`, `filter.ts`
 * (which events a watcher wants), `socket-path.ts`.
 *
 * Beside it, metrics for Prometheus over HTTP: `metrics-server.ts`, `metrics-page.ts` (the text format),
 * `metric-texts.ts` (what each counter counts).
 */
export {};
