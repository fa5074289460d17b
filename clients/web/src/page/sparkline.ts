/**
 * A graph of a figure over the last minute, as inline SVG.
 *
 * Owns the paths; the style sheet sets the colours. The vertical axis runs from zero to the largest value shown, so the
 * graph shows the trend; the number beside it gives the size.
 */

const SPAN_MS = 60_000;
const WIDTH = 120;
const HEIGHT = 28;
/** Margin for the thickness of the line. */
const EDGE = 2;
const SVG = "http://www.w3.org/2000/svg";

interface Point {
  readonly at: number;
  readonly value: number | null;
  readonly words: string;
}

export class Sparkline {
  readonly element = document.createElementNS(SVG, "svg");
  private readonly area = document.createElementNS(SVG, "path");
  private readonly line = document.createElementNS(SVG, "path");
  private points: Point[] = [];

  constructor() {
    this.element.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    this.element.setAttribute("preserveAspectRatio", "none");
    this.element.setAttribute("aria-hidden", "true"); // the number beside it has the same information
    this.area.setAttribute("class", "area");
    this.line.setAttribute("class", "line");
    this.element.append(this.area, this.line);
  }

  /** The largest value shown, as text; null if there is none. */
  get largest(): string | null {
    const peak = this.peak();
    return this.points.find(({ value }) => value !== null && value === peak)?.words ?? null;
  }

  /** Adds a value with its text; null leaves a gap. */
  push(at: number, value: number | null, words = ""): void {
    this.points = [...this.points.filter((point) => point.at >= at - SPAN_MS), { at, value, words }];
    const pieces = unbroken(this.points).map((piece) => piece.map((point) => this.place(point, at)));
    this.line.setAttribute("d", pieces.map((piece) => `M${piece.join("L")}`).join(""));
    this.area.setAttribute("d", pieces.map((piece) => closed(piece)).join(""));
  }

  private peak(): number {
    return Math.max(...this.points.map(({ value }) => value ?? 0));
  }

  private place({ at, value }: Point, now: number): string {
    const x = WIDTH * (1 - (now - at) / SPAN_MS);
    const share = (value ?? 0) / Math.max(this.peak(), Number.MIN_VALUE);
    const y = HEIGHT - EDGE - share * (HEIGHT - 2 * EDGE);
    return `${x.toFixed(1)},${y.toFixed(1)}`;
  }
}

/** Splits the points at unknown values; pieces of a single point are dropped. */
function unbroken(points: readonly Point[]): Point[][] {
  const pieces: Point[][] = [[]];
  for (const point of points) {
    if (point.value === null) pieces.push([]);
    else pieces.at(-1)?.push(point);
  }
  return pieces.filter((piece) => piece.length > 1);
}

/** The path of the area below a piece. */
function closed(piece: readonly string[]): string {
  const [left, right] = [piece[0], piece.at(-1)].map((place) => place?.split(",")[0]);
  return `M${left},${HEIGHT}L${piece.join("L")}L${right},${HEIGHT}Z`;
}
