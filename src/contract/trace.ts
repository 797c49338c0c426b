/** A step on a flow's way through the layers. */
export type TraceStage =
  | 'packet'
  | 'flow'
  | 'hook'
  | 'verdict'
  | 'upgrade'
  | 'stream'
  | 'session'
  | 'request'
  | 'response'
  | 'connect'
  | 'off-ramp'
  | 'drop'
  | 'end';

/** One event of the live trace. Events of one flow share `flow`. Costs nothing while nobody watches. */
export interface TraceEvent {
  /** Monotonic milliseconds of the process, with fraction. */
  readonly at: number;
  /** The flow's number, 0 before there is one. */
  readonly flow: number;
  readonly stage: TraceStage;
  readonly account: string;
  readonly vnet: string;
  /** `10.0.0.1:4000 > 10.10.0.10:80 tcp` */
  readonly tuple: string;
  /** What happened, one line for a person. */
  readonly text: string;
}
