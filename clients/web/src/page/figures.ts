/**
 * The operator page's figures, computed from scrapes of `/metrics`.
 *
 * Owns the names of the server's metrics (defined in `server/telemetry/metrics.py`) and the period of each figure. A
 * figure is null if it is unknown: there is no earlier scrape yet, nothing happened, or the server does not report it.
 */

import {
  ScrapeHistory,
  gauge,
  histograms,
  increases,
  quantile,
  samplesOf,
  secondsBetween,
  type Histogram,
  type Sample,
  type Scrape,
} from "../metrics";

/** Period of times and rates; counts use the longer period. */
export const RECENT_MS = 10_000;
export const LONG_MS = 60_000;
/** Tolerance for scrapes that are not exactly on time. */
const SLACK_MS = 500;

/** Durations of an operation and its rate. */
export interface Timing {
  readonly labels: Readonly<Record<string, string>>;
  readonly perSecond: number;
  readonly p50: Latency;
  readonly p99: Latency;
}

/** Milliseconds; with `beyond`, a lower bound. */
export interface Latency {
  readonly ms: number;
  readonly beyond: boolean;
}

/** A count over the last minute (null if not known yet) and since the server started. */
export interface Tally {
  readonly label: string;
  readonly lately: number | null;
  readonly total: number;
}

export interface Figures {
  readonly sessions: number | null;
  readonly queue: number | null;
  readonly suspended: number | null;
  readonly batch: number | null;
  readonly sent: number | null;
  readonly replaced: number | null;
  readonly actionToFrame: Timing | null;
  readonly ticks: readonly Timing[];
  readonly decodes: readonly Timing[];
  readonly admissions: readonly Tally[];
  readonly refusals: readonly Tally[];
  readonly resumes: readonly Tally[];
}

export class FigureReader {
  private readonly history = new ScrapeHistory(LONG_MS + SLACK_MS);

  /** Adds the newest scrape and returns the figures. */
  read(now: Scrape): Figures {
    this.history.push(now);
    const recent = this.history.before(RECENT_MS + SLACK_MS);
    const long = this.history.before(LONG_MS + SLACK_MS);
    const ticks = timings(recent, now, "lightcone_tick_seconds");
    return {
      sessions: gauge(now, "lightcone_sessions"),
      queue: gauge(now, "lightcone_queue_length"),
      suspended: gauge(now, "lightcone_suspended_sessions"),
      batch: meanBatch(ticks),
      sent: framesPerSecond(recent, now, "sent"),
      replaced: framesPerSecond(recent, now, "replaced"),
      actionToFrame: timings(recent, now, "lightcone_action_to_frame_seconds")[0] ?? null,
      ticks,
      decodes: timings(recent, now, "lightcone_decode_seconds"),
      admissions: tallies(long, now, "lightcone_admissions_total", "world"),
      refusals: tallies(long, now, "lightcone_refusals_total", "code"),
      resumes: tallies(long, now, "lightcone_resumes_total", "where"),
    };
  }
}

function framesPerSecond(before: Scrape | null, now: Scrape, fate: string): number | null {
  if (!before) return null;
  const matches = ({ labels }: Sample): boolean => labels["fate"] === fate;
  const frames = increases(before, now, "lightcone_frames_total").find(matches);
  return (frames?.value ?? 0) / secondsBetween(before, now);
}

/** Sorted by world, then by batch size if there is one. */
function timings(before: Scrape | null, now: Scrape, name: string): Timing[] {
  if (!before) return [];
  const order = new Intl.Collator("en", { numeric: true });
  const sortKey = ({ labels }: Timing): string => `${labels["world"] ?? ""} ${labels["batch"] ?? ""}`;
  return histograms(before, now, name)
    .map((histogram) => ({
      labels: histogram.labels,
      perSecond: histogram.count / secondsBetween(before, now),
      p50: latency(histogram, 0.5),
      p99: latency(histogram, 0.99),
    }))
    .sort((a, b) => order.compare(sortKey(a), sortKey(b)));
}

function latency(histogram: Histogram, share: number): Latency {
  const seconds = quantile(histogram, share) ?? NaN;
  const beyond = seconds === Infinity;
  return { ms: 1000 * (beyond ? (histogram.bounds.at(-2) ?? NaN) : seconds), beyond };
}

/** Mean number of sessions per tick over all worlds. */
function meanBatch(ticks: readonly Timing[]): number | null {
  const all = ticks.reduce((sum, { perSecond }) => sum + perSecond, 0);
  const sessions = ticks.reduce((sum, { labels, perSecond }) => sum + perSecond * Number(labels["batch"]), 0);
  return all > 0 ? sessions / all : null;
}

function tallies(before: Scrape | null, now: Scrape, name: string, label: string): Tally[] {
  const lately = before ? increases(before, now, name).map(({ value }) => value) : [];
  return samplesOf(now, name)
    .map(({ labels, value }, index) => ({ label: labels[label] ?? "", lately: lately[index] ?? null, total: value }))
    .sort((a, b) => b.total - a.total || (a.label < b.label ? -1 : 1));
}
