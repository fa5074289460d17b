/**
 * What the server's `/metrics` says, and what two readings of it tell about the time between them.
 *
 * Owns the Prometheus text format, version 0.0.4 (prometheus.io/docs/instrumenting/exposition_formats), as far as the
 * server writes it. Knows no names of metrics and no page. Times are milliseconds of one clock and are passed in.
 */

import { LightconeError } from "./errors";

export interface Sample {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

/** All samples of one reading, by name and labels. */
export interface Scrape {
  readonly at: number;
  readonly samples: ReadonlyMap<string, Sample>;
}

/** What a histogram took in between two readings. */
export interface Histogram {
  readonly labels: Readonly<Record<string, string>>;
  /** Upper ends of the buckets, rising; the last is Infinity. */
  readonly bounds: readonly number[];
  /** How many observations were at most the bound. */
  readonly atMost: readonly number[];
  readonly count: number;
  readonly sum: number;
}

const LINE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)(?:\s+-?\d+)?\s*$/;
const LABEL = /([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"/g;
const SPECIAL: Readonly<Record<string, number>> = { "+Inf": Infinity, "-Inf": -Infinity, NaN };
/** Suffixes of what only grows, while one process lives. */
const GROWS = /_(total|count)$/;

/** Raises LightconeError where a line is no metric, as when a proxy answers with a page of its own. */
export function parseMetrics(text: string, at: number): Scrape {
  const samples = new Map<string, Sample>();
  for (const line of text.split("\n")) {
    if (line.trim() === "" || line.startsWith("#")) continue;
    const sample = parseLine(line);
    samples.set(key(sample.name, sample.labels), sample);
  }
  return { at, samples };
}

function parseLine(line: string): Sample {
  const [, name, labels = "", written] = LINE.exec(line) ?? [];
  const value = written === undefined ? undefined : (SPECIAL[written] ?? Number(written));
  if (name === undefined || value === undefined || (Number.isNaN(value) && written !== "NaN")) {
    throw new LightconeError(`not a line of metrics: "${line.slice(0, 80)}"`);
  }
  const pairs = [...labels.matchAll(LABEL)].map(([, label = "", text = ""]) => [label, unescaped(text)] as const);
  return { name, labels: Object.fromEntries(pairs), value };
}

function unescaped(text: string): string {
  return text.replace(/\\(.)/g, (_, character: string) => (character === "n" ? "\n" : character));
}

function key(name: string, labels: Readonly<Record<string, string>>): string {
  return JSON.stringify([name, ...Object.entries(labels).sort(([a], [b]) => (a < b ? -1 : 1))]);
}

/** All samples of this name, whatever their labels. */
export function samplesOf(scrape: Scrape, name: string): Sample[] {
  return [...scrape.samples.values()].filter((sample) => sample.name === name);
}

/** A metric without labels; null where the server does not have it. */
export function gauge(scrape: Scrape, name: string): number | null {
  return scrape.samples.get(key(name, {}))?.value ?? null;
}

/** How far the counters of a name have grown. One that was not there before has grown from 0: labels appear with use. */
export function increases(before: Scrape, now: Scrape, name: string): Sample[] {
  return samplesOf(now, name).map((sample) => {
    const old = before.samples.get(key(name, sample.labels))?.value ?? 0;
    return { ...sample, value: sample.value - old };
  });
}

/** What each histogram of a name took in, without those that took in nothing. */
export function histograms(before: Scrape, now: Scrape, name: string): Histogram[] {
  const buckets = new Map<string, [bound: number, atMost: number][]>();
  for (const { labels, value } of increases(before, now, `${name}_bucket`)) {
    const { le = "", ...others } = labels;
    const own = key(name, others);
    buckets.set(own, [...(buckets.get(own) ?? []), [SPECIAL[le] ?? Number(le), value]]);
  }
  return increases(before, now, `${name}_sum`).flatMap(({ labels, value: sum }) => {
    const own = (buckets.get(key(name, labels)) ?? []).sort(([a], [b]) => a - b);
    const atMost = own.map(([, number]) => number);
    const count = atMost.at(-1) ?? 0;
    return count > 0 ? [{ labels, bounds: own.map(([bound]) => bound), atMost, count, sum }] : [];
  });
}

/**
 * The value below which a share of the observations lies, taken to be spread evenly within their bucket (as Prometheus's
 * `histogram_quantile` does). Null of nothing; Infinity where it lies beyond the last bound that is a number.
 */
export function quantile({ bounds, atMost, count }: Histogram, share: number): number | null {
  if (count === 0) return null;
  const rank = share * count;
  const bucket = atMost.findIndex((number) => number > 0 && number >= rank);
  const upper = bounds[bucket] ?? Infinity;
  if (upper === Infinity) return Infinity;
  const lower = bounds[bucket - 1] ?? 0;
  const below = atMost[bucket - 1] ?? 0;
  return lower + ((upper - lower) * (rank - below)) / ((atMost[bucket] as number) - below);
}

/** Seconds between two readings. */
export function secondsBetween(before: Scrape, now: Scrape): number {
  return (now.at - before.at) / 1000;
}

/** The readings of the last while. */
export class ScrapeHistory {
  private scrapes: Scrape[] = [];

  constructor(private readonly keepMs: number) {}

  /** Forgets what came before the server's restart: its counts began anew. */
  push(scrape: Scrape): void {
    const last = this.scrapes.at(-1);
    if (last && hasRestarted(last, scrape)) this.scrapes = [];
    this.scrapes = [...this.scrapes.filter(({ at }) => at >= scrape.at - this.keepMs), scrape];
  }

  /** What to compare the newest reading with: the oldest that is at most this much older; null where there is none. */
  before(spanMs: number): Scrape | null {
    const newest = this.scrapes.at(-1);
    return this.scrapes.find((scrape) => scrape !== newest && scrape.at >= (newest?.at ?? 0) - spanMs) ?? null;
  }
}

/** Counts neither shrink nor vanish while a server lives. */
function hasRestarted(before: Scrape, now: Scrape): boolean {
  return [...before.samples].some(
    ([own, { name, value }]) => GROWS.test(name) && !((now.samples.get(own)?.value ?? -1) >= value),
  );
}
