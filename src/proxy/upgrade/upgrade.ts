/**
 * `upgrade` lifts traffic one layer up: IP flows to TCP streams (`stack.ts`) and echo replies (`echo.ts`), IP
 * flows to UDP sessions (`session.ts`), streams to HTTP exchanges (`first-bytes.ts`, `http.ts`), and carries
 * streams that stay streams (`stream.ts`). It decides nothing by itself: verdicts come from hooks and routes.
 *
 * This file is the folder's front: it says what belongs here. Import the file that you need, not this one.
 */
export {};
