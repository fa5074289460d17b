/**
 * How far a world's recent pictures are from its usual statistics.
 *
 * Owns the four figures, in grey levels, as the server defines them for `WorldInfo.statistics`: brightness (mean),
 * contrast (standard deviation), sharpness (mean absolute difference of neighbouring pixels, vertically and
 * horizontally) and motion (mean absolute difference of successive pictures). Each is averaged over the last two
 * seconds. Knows only pixels.
 */

import type { Usual } from "./protocol";

export const FIGURES = ["brightness", "contrast", "sharpness", "motion"] as const;
export type Figure = (typeof FIGURES)[number];

const WINDOW_S = 2;

/** Computes the figures of a picture. `rgba`: its pixels as `ImageData.data`; `before`: those of the previous picture. */
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

  /** `usual`: the statistics from the world's card; `fps`: pictures per second. */
  constructor(
    private readonly usual: Readonly<Record<string, Usual>>,
    private readonly fps: number,
  ) {}

  /** Adds a picture that was shown. `following`: whether it directly follows the previous one. */
  push(rgba: Uint8ClampedArray, width: number, height: number, following: boolean): void {
    const continues = following && this.before?.length === rgba.length;
    if (!continues) this.recent = [];
    const figures = pictureFigures(rgba, width, height, continues ? this.before : null);
    this.before = rgba;
    if (continues) this.recent.push(figures);
    while (this.recent.length > WINDOW_S * this.fps) this.recent.shift();
  }

  /**
   * Signed distance from the usual mean, in usual standard deviations. Null until a second of pictures was shown, or if
   * the world's card has no statistics.
   */
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
