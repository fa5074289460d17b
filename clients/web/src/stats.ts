/**
 * What a player wants to know about the stream: its rate, and how long an action takes to become light.
 *
 * Owns the bookkeeping only. Times are milliseconds of one monotonic clock and are passed in, so nothing here reads one.
 */

/** The middle value, or null of nothing; the mean of the middle two when there are two. */
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
    this.forget(now);
  }

  /** Intervals between events divided by the time they span; 0 once nothing has come for a window. */
  rate(now: number): number {
    this.forget(now);
    const first = this.times[0];
    const last = this.times[this.times.length - 1];
    if (first === undefined || last === undefined || last === first) return 0;
    return ((this.times.length - 1) * 1000) / (last - first);
  }

  reset(): void {
    this.times = [];
  }

  private forget(now: number): void {
    while (this.times.length > 0 && (this.times[0] as number) < now - this.windowMs) this.times.shift();
  }
}

/**
 * Action-to-photon latency: from the input event to the animation frame after the one that drew the first frame whose
 * `applied_seq` covers the action. The median of the most recent actions.
 */
export class LatencyTracker {
  private pending: { seq: number; at: number }[] = [];
  private samples: number[] = [];

  constructor(private readonly keep = 31) {}

  /** An action with this sequence number was caused by an event at `at`. */
  sent(seq: number, at: number): void {
    this.pending.push({ seq, at });
    // A stream that never answers (paused, lost) must not grow this list.
    if (this.pending.length > 4 * this.keep) this.pending.shift();
  }

  /** A frame that applied every action up to `appliedSeq` was on the screen at `at`. */
  presented(appliedSeq: number, at: number): void {
    const covered = this.pending.filter((action) => action.seq <= appliedSeq);
    if (covered.length === 0) return;
    this.pending = this.pending.filter((action) => action.seq > appliedSeq);
    this.samples = [...this.samples, ...covered.map((action) => at - action.at)].slice(-this.keep);
  }

  /** Forgets actions still unanswered: after a pause their age says nothing about the stream. */
  dropPending(): void {
    this.pending = [];
  }

  medianMs(): number | null {
    return median(this.samples);
  }
}
