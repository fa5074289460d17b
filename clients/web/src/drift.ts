/**
 * How far a world's recent pictures are from what is usual for it.
 *
 * Owns the four figures, in grey levels, as the server defines them for `WorldInfo.statistics`: brightness (mean),
 * contrast (standard deviation), sharpness (mean difference of neighbouring pixels, down and across) and motion (mean
 * difference of successive pictures); each is averaged over the last two seconds. Knows pixels and nothing else.
 */

import type { Usual } from "./protocol";

export const FIGURES = ["brightness", "contrast", "sharpness", "motion"] as const;
export type Figure = (typeof FIGURES)[number];

const WINDOW_S = 2;

/** Colours of a picture of `width × height`, four bytes a pixel as a canvas gives them; `before`: the one before it. */
export function pictureFigures(
  rgba: Uint8ClampedArray,
  width: number,
  height: number,
  before: Uint8ClampedArray | null,
): Record<Figure, number> {
  let sum = 0;
  let squares = 0;
  let across = 0;
  let down = 0;
  let moved = 0;
  const row = 4 * width;
  for (let at = 0; at < rgba.length; at += 1) {
    if (at % 4 === 3) continue; // opacity
    const value = rgba[at] as number;
    sum += value;
    squares += value * value;
    if ((at % row) + 4 < row) across += Math.abs((rgba[at + 4] as number) - value);
    if (at + row < rgba.length) down += Math.abs((rgba[at + row] as number) - value);
    if (before) moved += Math.abs(value - (before[at] as number));
  }
  const count = 3 * width * height;
  const mean = sum / count;
  return {
    brightness: mean,
    contrast: Math.sqrt(Math.max(0, squares / count - mean * mean)),
    sharpness: (across / (3 * (width - 1) * height) + down / (3 * width * (height - 1))) / 2,
    motion: before ? moved / count : NaN,
  };
}

export class DriftMeter {
  private recent: Record<Figure, number>[] = [];
  private before: Uint8ClampedArray | null = null;

  /** `usual`: what the world's card says; `fps`: pictures a second. */
  constructor(
    private readonly usual: Readonly<Record<string, Usual>>,
    private readonly fps: number,
  ) {}

  /** A picture was shown; `following`: it follows the one before in time. */
  push(rgba: Uint8ClampedArray, width: number, height: number, following: boolean): void {
    const same = following && this.before?.length === rgba.length;
    if (!same) this.recent = [];
    const figures = pictureFigures(rgba, width, height, same ? this.before : null);
    this.before = rgba;
    if (same) this.recent.push(figures);
    while (this.recent.length > WINDOW_S * this.fps) this.recent.shift();
  }

  /** Distance from the usual mean in usual deviations, with its sign; null before a second of pictures, or where the
   * world does not say what is usual. */
  distance(figure: Figure): number | null {
    const usual = this.usual[figure];
    if (!usual || this.recent.length < this.fps) return null;
    const mean = this.recent.reduce((sum, figures) => sum + figures[figure], 0) / this.recent.length;
    return (mean - usual.mean) / Math.max(usual.deviation, 0.01);
  }

  reset(): void {
    this.recent = [];
    this.before = null;
  }
}
