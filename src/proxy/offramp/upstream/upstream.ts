/**
 * `upstream` decides which of several origins a connection goes to: `balancer.ts` (the choice, ejection, slow
 * start and limits; pure), `retry-budget.ts` (how many second tries there may be; pure), `health-check.ts`
 * (asks origins whether they work), `dns-cache.ts` (names, as long as their records allow), and
 * `happy-eyeballs.ts` (which address of a name answers first).
 */
export {};
