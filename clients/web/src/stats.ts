/**
 * Statistics of the stream: its frame rate and its action-to-photon latency.
 *
 * Owns the calculations. Times are milliseconds of one monotonic clock and are passed in.
 */

/** The median (the mean of the middle two of an even number of values), or null if there are no values. */
export function median(values: readonly number[]): number | null {
  if (values.length === 0) return null;
  const sorted = [...values].sort((a, b) => a - b);
  const upper = sorted[sorted.length >> 1] as number;
  return sorted.length % 2 === 1 ? upper : (upper + (sorted[(sorted.length >> 1) - 1] as number)) / 2;
}

/** Events per second over the last `windowMs`. */
export class RateMeter {
  private times: number[] = [];

  constructor(private readonly windowMs = 1000) {}

  mark(now: number): void {
    this.times.push(now);
    this.dropOld(now);
  }

  /** Number of intervals between events, divided by the time they span; 0 if the window has fewer than two events. */
  rate(now: number): number {
    this.dropOld(now);
    const first = this.times[0];
    const last = this.times[this.times.length - 1];
    if (first === undefined || last === undefined || last === first) return 0;
    return ((this.times.length - 1) * 1000) / (last - first);
  }

  reset(): void {
    this.times = [];
  }

  private dropOld(now: number): void {
    while (this.times.length > 0 && (this.times[0] as number) < now - this.windowMs) this.times.shift();
  }
}

/**
 * Action-to-photon latency: from the input event to the animation frame after the one that drew the first frame whose
 * `applied_seq` covers the action. Reports the median over the most recent actions.
 */
export class LatencyTracker {
  private pending: { seq: number; at: number }[] = [];
  private samples: number[] = [];

  constructor(private readonly keep = 31) {}

  /** Records that an event at `at` caused the action `seq`. */
  sent(seq: number, at: number): void {
    this.pending.push({ seq, at });
    // Bounds the list while the stream is paused or lost.
    if (this.pending.length > 4 * this.keep) this.pending.shift();
  }

  /** Records that a frame reflecting every action up to `appliedSeq` was on the screen at `at`. */
  presented(appliedSeq: number, at: number): void {
    const covered = this.pending.filter((action) => action.seq <= appliedSeq);
    if (covered.length === 0) return;
    this.pending = this.pending.filter((action) => action.seq > appliedSeq);
    this.samples = [...this.samples, ...covered.map((action) => at - action.at)].slice(-this.keep);
  }

  /** Drops the actions without a frame so far: across a pause they do not measure latency. */
  dropPending(): void {
    this.pending = [];
  }

  medianMs(): number | null {
    return median(this.samples);
  }
}
