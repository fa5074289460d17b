/**
 * The playout buffer: decides which decoded picture to show now.
 *
 * If a chunk is a single picture, it is shown at once and the newest wins. If a chunk has several pictures, they arrive
 * in one burst and are spread over time at the world's rate; at most one chunk waits behind the one being shown, and
 * older ones are dropped. Owns this decision; times are passed in.
 */

/** The properties of a picture that the decision depends on; a subset of a frame message. */
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

  /** `intervalMs`: time between the pictures of a chunk. `discard`: called with each picture that will not be shown. */
  constructor(
    private readonly intervalMs: number,
    private readonly discard: (item: T) => void,
  ) {}

  /** Adds a picture that was decoded at `now`; a picture older than the newest is discarded. */
  push(item: T, now: number): void {
    if (item.index <= this.newestIndex) return this.discard(item);
    this.newestIndex = item.index;
    const isFirstOfChunk = item.chunk !== this.lastChunk;
    const showNow = item.run !== this.lastRun || (isFirstOfChunk && item.end_of_chunk);
    this.lastChunk = item.chunk;
    this.lastRun = item.run;
    if (showNow) this.clear();
    else if (isFirstOfChunk) this.makeRoom();
    const dueAt = showNow ? now : Math.max(now, this.lastDue + this.intervalMs);
    this.lastDue = dueAt;
    this.queue.push({ item, dueAt });
  }

  /** Removes and returns the newest picture due at `now`, or null; older due pictures are discarded. */
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

  /** Discards all pictures and resets the numbering, as for a new session. */
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

  /** Makes room for a chunk: if two are queued, drops the older and moves the newer to its place. */
  private makeRoom(): void {
    const queued = [...new Set(this.queue.map(({ item }) => item.chunk))];
    if (queued.length < 2) return;
    const newest = queued[queued.length - 1];
    const remaining = this.queue.filter(({ item }) => item.chunk === newest);
    for (const { item } of this.queue) if (item.chunk !== newest) this.discard(item);
    const shift = (remaining[0] as Entry<T>).dueAt - (this.queue[0] as Entry<T>).dueAt;
    this.queue = remaining.map(({ item, dueAt }) => ({ item, dueAt: dueAt - shift }));
    this.lastDue -= shift;
  }
}
