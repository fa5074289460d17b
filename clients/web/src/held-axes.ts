/**
 * Axes that are held at a value, such as a pushed stick or a slider away from its rest.
 *
 * Owns how a value per chunk becomes movement over time. Knows no DOM, no socket and no clock; times are passed in, in
 * milliseconds.
 */

/** A longer pause between two calls of `movement` does not count: the page was hidden. */
const LONGEST_STEP_MS = 100;

export class HeldAxes {
  private readonly values = new Map<string, number>();
  private lastAt: number | null = null;

  /** `chunkMs`: how long a chunk lasts at the world's own rate. */
  constructor(private readonly chunkMs: number) {}

  /** Holds an axis at `value` per chunk from now on; 0 lets it go. */
  hold(axis: string, value: number): void {
    if (value === 0) this.values.delete(axis);
    else this.values.set(axis, value);
  }

  /** Lets go of all axes. */
  clear(): void {
    this.values.clear();
  }

  get isEmpty(): boolean {
    return this.values.size === 0;
  }

  /** The movement of one chunk. */
  chunk(): Record<string, number> {
    return Object.fromEntries(this.values);
  }

  /** Returns how far each axis has moved since the previous call; nothing at the first one. */
  movement(now: number, speed: number): [string, number][] {
    const elapsed = this.lastAt === null ? 0 : Math.min(LONGEST_STEP_MS, now - this.lastAt);
    this.lastAt = this.isEmpty ? null : now;
    const chunks = (elapsed * speed) / this.chunkMs;
    return [...this.values].map(([axis, value]) => [axis, value * chunks]);
  }
}
