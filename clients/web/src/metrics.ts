/**
 * Parsing the server's `/metrics`, and rates and quantiles of the time between two scrapes.
 *
 * Owns the Prometheus text format, version 0.0.4 (prometheus.io/docs/instrumenting/exposition_formats), as far as the
 * server uses it. Knows no metric names and no page. Times are milliseconds of one clock and are passed in.
 */

import { LightconeError } from "./errors";

export interface Sample {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

/** All samples of one scrape, by name and labels. */
export interface Scrape {
  readonly at: number;
  readonly samples: ReadonlyMap<string, Sample>;
}

/** The observations of a histogram between two scrapes. */
export interface Histogram {
  readonly labels: Readonly<Record<string, string>>;
  /** Upper bounds of the buckets, ascending; the last is Infinity. */
  readonly bounds: readonly number[];
  /** Number of observations up to each bound. */
  readonly cumulative: readonly number[];
  readonly count: number;
  readonly sum: number;
}

const LINE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)(?:\s+-?\d+)?\s*$/;
const LABEL = /([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"/g;
const SPECIAL: Readonly<Record<string, number>> = { "+Inf": Infinity, "-Inf": -Infinity, NaN };
/** Suffixes of the metrics that never decrease while a server runs. */
const MONOTONIC = /_(total|count)$/;

/** Parses a scrape. @throws LightconeError for a line that is not a metric, such as the error page of a proxy. */
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
  const [, name, labels = "", number] = LINE.exec(line) ?? [];
  const value = number === undefined ? undefined : (SPECIAL[number] ?? Number(number));
  if (name === undefined || value === undefined || (Number.isNaN(value) && number !== "NaN")) {
    throw new LightconeError(`this line is not a metric: "${line.slice(0, 80)}"`);
  }
  const pairs = [...labels.matchAll(LABEL)].map(([, label = "", text = ""]) => [label, unescape(text)] as const);
  return { name, labels: Object.fromEntries(pairs), value };
}

function unescape(text: string): string {
  return text.replace(/\\(.)/g, (_, character: string) => (character === "n" ? "\n" : character));
}

function key(name: string, labels: Readonly<Record<string, string>>): string {
  return JSON.stringify([name, ...Object.entries(labels).sort(([a], [b]) => (a < b ? -1 : 1))]);
}

/** All samples of a metric, with any labels. */
export function samplesOf(scrape: Scrape, name: string): Sample[] {
  return [...scrape.samples.values()].filter((sample) => sample.name === name);
}

/** The value of a metric without labels; null if the server does not report it. */
export function gauge(scrape: Scrape, name: string): number | null {
  return scrape.samples.get(key(name, {}))?.value ?? null;
}

/** The increases of a metric's counters. A counter that is missing from `before` was 0: labels appear on first use. */
export function increases(before: Scrape, now: Scrape, name: string): Sample[] {
  return samplesOf(now, name).map((sample) => {
    const old = before.samples.get(key(name, sample.labels))?.value ?? 0;
    return { ...sample, value: sample.value - old };
  });
}

/** The histograms of a metric between two scrapes, without those that have no observations. */
export function histograms(before: Scrape, now: Scrape, name: string): Histogram[] {
  const buckets = new Map<string, [bound: number, cumulative: number][]>();
  for (const { labels, value } of increases(before, now, `${name}_bucket`)) {
    const { le = "", ...others } = labels;
    const id = key(name, others);
    buckets.set(id, [...(buckets.get(id) ?? []), [SPECIAL[le] ?? Number(le), value]]);
  }
  return increases(before, now, `${name}_sum`).flatMap(({ labels, value: sum }) => {
    const sorted = (buckets.get(key(name, labels)) ?? []).sort(([a], [b]) => a - b);
    const cumulative = sorted.map(([, number]) => number);
    const count = cumulative.at(-1) ?? 0;
    return count > 0 ? [{ labels, bounds: sorted.map(([bound]) => bound), cumulative, count, sum }] : [];
  });
}

/**
 * The quantile `share` of a histogram, assuming that observations are spread evenly within their bucket (as Prometheus's
 * `histogram_quantile` does). Null if there are no observations; Infinity if it lies above the last finite bound.
 */
export function quantile({ bounds, cumulative, count }: Histogram, share: number): number | null {
  if (count === 0) return null;
  const rank = share * count;
  const bucket = cumulative.findIndex((number) => number > 0 && number >= rank);
  const upper = bounds[bucket] ?? Infinity;
  if (upper === Infinity) return Infinity;
  const lower = bounds[bucket - 1] ?? 0;
  const below = cumulative[bucket - 1] ?? 0;
  return lower + ((upper - lower) * (rank - below)) / ((cumulative[bucket] as number) - below);
}

/** Seconds between two scrapes. */
export function secondsBetween(before: Scrape, now: Scrape): number {
  return (now.at - before.at) / 1000;
}

/** The scrapes of the last `keepMs`. */
export class ScrapeHistory {
  private scrapes: Scrape[] = [];

  constructor(private readonly keepMs: number) {}

  /** Adds a scrape; if the server has restarted, the older ones are dropped, since its counters began at 0 again. */
  push(scrape: Scrape): void {
    const last = this.scrapes.at(-1);
    if (last && hasRestarted(last, scrape)) this.scrapes = [];
    this.scrapes = [...this.scrapes.filter(({ at }) => at >= scrape.at - this.keepMs), scrape];
  }

  /** The oldest scrape that is at most `spanMs` older than the newest; null if there is none. */
  before(spanMs: number): Scrape | null {
    const newest = this.scrapes.at(-1);
    return this.scrapes.find((scrape) => scrape !== newest && scrape.at >= (newest?.at ?? 0) - spanMs) ?? null;
  }
}

/** Whether a counter has decreased or disappeared, which does not happen while a server runs. */
function hasRestarted(before: Scrape, now: Scrape): boolean {
  return [...before.samples].some(
    ([id, { name, value }]) => MONOTONIC.test(name) && !((now.samples.get(id)?.value ?? -1) >= value),
  );
}
