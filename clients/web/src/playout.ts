/**
 * Which decoded picture to show now.
 *
 * A world that makes one picture at a time shows each at once, and the newest wins. A world that makes several pictures
 * per chunk sends them in one burst; they are spread over time at the world's rate, and at most one chunk waits behind
 * the one on show, so that falling behind is made up by dropping the oldest. Owns this decision; time is passed in.
 */

/** What the decision needs to know of a picture; a frame message has all of it. */
export interface Playable {
  readonly index: number;
  readonly chunk: number;
  readonly run: number;
  readonly end_of_chunk: boolean;
}

interface Entry<T> {
  readonly item: T;
  readonly dueAt: number;
}

export class Playout<T extends Playable> {
  private queue: Entry<T>[] = [];
  private newestIndex = -1;
  private lastDue = -Infinity;
  private lastChunk = -1;
  private lastRun = -1;

  /** `intervalMs`: time between pictures of one chunk. `discard`: called with each picture that will not be shown. */
  constructor(
    private readonly intervalMs: number,
    private readonly discard: (item: T) => void,
  ) {}

  /** Adds a picture that became ready at `now`; one that is older than the newest is discarded. */
  push(item: T, now: number): void {
    if (item.index <= this.newestIndex) return this.discard(item);
    this.newestIndex = item.index;
    const opensChunk = item.chunk !== this.lastChunk;
    const atOnce = item.run !== this.lastRun || (opensChunk && item.end_of_chunk);
    this.lastChunk = item.chunk;
    this.lastRun = item.run;
    if (atOnce) this.clear();
    else if (opensChunk) this.makeRoom();
    const dueAt = atOnce ? now : Math.max(now, this.lastDue + this.intervalMs);
    this.lastDue = dueAt;
    this.queue.push({ item, dueAt });
  }

  /** The newest picture due at `now`, or null; older ones that are due too are discarded. */
  take(now: number): T | null {
    let newest: T | null = null;
    while (this.queue.length > 0 && (this.queue[0] as Entry<T>).dueAt <= now) {
      if (newest) this.discard(newest);
      newest = (this.queue.shift() as Entry<T>).item;
    }
    return newest;
  }

  get isEmpty(): boolean {
    return this.queue.length === 0;
  }

  /** Discards everything and forgets the numbering, as for a new session. */
  reset(): void {
    this.clear();
    this.newestIndex = -1;
    this.lastDue = -Infinity;
    this.lastChunk = -1;
    this.lastRun = -1;
  }

  private clear(): void {
    for (const { item } of this.queue) this.discard(item);
    this.queue = [];
  }

  /** Before another chunk enters: of two that wait, drops the older and lets the newer play in its place. */
  private makeRoom(): void {
    const waiting = [...new Set(this.queue.map(({ item }) => item.chunk))];
    if (waiting.length < 2) return;
    const keep = waiting[waiting.length - 1];
    const kept = this.queue.filter(({ item }) => item.chunk === keep);
    for (const { item } of this.queue) if (item.chunk !== keep) this.discard(item);
    const shift = (kept[0] as Entry<T>).dueAt - (this.queue[0] as Entry<T>).dueAt;
    this.queue = kept.map(({ item, dueAt }) => ({ item, dueAt: dueAt - shift }));
    this.lastDue -= shift;
  }
}
