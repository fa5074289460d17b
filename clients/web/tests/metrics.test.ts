import { describe, expect, it } from "vitest";
import { LightconeError } from "../src/errors";
import { ScrapeHistory, gauge, histograms, increases, parseMetrics, quantile, samplesOf, secondsBetween } from "../src/metrics";
import { FigureReader } from "../src/page/figures";

/** A histogram in the text format: counts per bucket up to 0.01, 0.02, 0.04 and +Inf. */
function exposition(name: string, labels: string, counts: readonly number[], sum = 1): string {
  let cumulative = 0;
  const buckets = ["0.01", "0.02", "0.04", "+Inf"].map((le, index) => {
    cumulative += counts[index] ?? 0;
    return `${name}_bucket{${[labels, `le="${le}"`].filter(Boolean).join(",")}} ${cumulative}.0`;
  });
  const braces = labels ? `{${labels}}` : "";
  return [...buckets, `${name}_count${braces} ${cumulative}.0`, `${name}_sum${braces} ${sum}`].join("\n");
}

describe("parseMetrics", () => {
  it("reads names, labels and values, and skips comments", () => {
    const text = '# HELP a What\n# TYPE a counter\na_total{x="1",y="b c"} 3.0\n\nplain 2.5e-3\nold 7 1700000000000\n';
    const scrape = parseMetrics(text, 5);
    expect(scrape.at).toBe(5);
    expect(samplesOf(scrape, "a_total")).toEqual([{ name: "a_total", labels: { x: "1", y: "b c" }, value: 3 }]);
    expect(gauge(scrape, "plain")).toBe(0.0025);
    expect(gauge(scrape, "old")).toBe(7);
    expect(gauge(scrape, "absent")).toBeNull();
  });

  it("reads escapes and braces in labels, infinities and NaN", () => {
    const scrape = parseMetrics('a{x="\\"q\\" \\\\ \\n {},="} +Inf\nb NaN', 0);
    expect(samplesOf(scrape, "a")).toEqual([{ name: "a", labels: { x: '"q" \\ \n {},=' }, value: Infinity }]);
    expect(gauge(scrape, "b")).toBeNaN();
  });

  it.each(["<!doctype html>", "a", "a b", 'a{x="1"}'])("rejects %s", (line) => {
    expect(() => parseMetrics(`ok 1\n${line}`, 0)).toThrow(LightconeError);
  });
});

describe("increases", () => {
  it("count from zero for new labels, and ignore the order of labels", () => {
    const before = parseMetrics('n_total{a="1",b="2"} 5', 1000);
    const now = parseMetrics('n_total{b="2",a="1"} 8\nn_total{a="2",b="2"} 4', 3000);
    expect(increases(before, now, "n_total").map(({ value }) => value)).toEqual([3, 4]);
    expect(secondsBetween(before, now)).toBe(2);
  });
});

describe("histograms", () => {
  const before = parseMetrics(exposition("t", 'w="a"', [5, 5, 0, 0], 0.1), 0);

  it("contain the observations between two scrapes", () => {
    const now = parseMetrics([exposition("t", 'w="a"', [5, 7, 2, 0], 0.2), exposition("t", 'w="b"', [1, 0, 0, 0])].join("\n"), 1000);
    const [first, second] = histograms(before, now, "t");
    expect(first).toMatchObject({ labels: { w: "a" }, bounds: [0.01, 0.02, 0.04, Infinity], cumulative: [0, 2, 4, 4], count: 4 });
    expect(first?.sum).toBeCloseTo(0.1);
    expect(second).toMatchObject({ labels: { w: "b" }, count: 1 });
  });

  it("leave out histograms without observations", () => {
    expect(histograms(before, before, "t")).toEqual([]);
  });
});

describe("quantile", () => {
  const of = (...counts: number[]) => {
    const [histogram] = histograms(parseMetrics("", 0), parseMetrics(exposition("t", "", counts), 1), "t");
    return histogram ?? { labels: {}, bounds: [], cumulative: [], count: 0, sum: 0 };
  };

  it("interpolates linearly within a bucket", () => {
    expect(quantile(of(4, 4, 0, 0), 0.25)).toBeCloseTo(0.005);
    expect(quantile(of(4, 4, 0, 0), 0.5)).toBeCloseTo(0.01);
    expect(quantile(of(4, 4, 0, 0), 0.75)).toBeCloseTo(0.015);
    expect(quantile(of(0, 0, 10, 0), 0.99)).toBeCloseTo(0.0398);
    expect(quantile(of(0, 0, 10, 0), 0)).toBeCloseTo(0.02);
  });

  it("is infinite in the last bucket, and null without observations", () => {
    expect(quantile(of(9, 0, 0, 1), 0.99)).toBe(Infinity);
    expect(quantile(of(0, 0, 0, 0), 0.5)).toBeNull();
  });
});

describe("ScrapeHistory", () => {
  const at = (seconds: number, count: number) => parseMetrics(`n_total ${count}\ng ${-count}`, 1000 * seconds);

  it("returns the oldest scrape within the span", () => {
    const history = new ScrapeHistory(60_000);
    expect(history.before(10_000)).toBeNull();
    history.push(at(0, 0));
    expect(history.before(10_000)).toBeNull();
    for (let second = 1; second <= 100; second += 1) history.push(at(second, second));
    expect(history.before(10_000)?.at).toBe(90_000);
    expect(history.before(60_000)?.at).toBe(40_000);
    expect(history.before(90_000)?.at).toBe(40_000);
  });

  it("returns null after a gap longer than the span", () => {
    const history = new ScrapeHistory(60_000);
    history.push(at(0, 0));
    history.push(at(30, 0));
    expect(history.before(10_000)).toBeNull();
    expect(history.before(60_000)?.at).toBe(0);
  });

  it("drops the scrapes from before a restart", () => {
    const history = new ScrapeHistory(60_000);
    history.push(at(0, 9));
    history.push(at(1, 2));
    expect(history.before(10_000)).toBeNull();
    history.push(at(2, 3));
    expect(history.before(10_000)?.at).toBe(1000);
    history.push(parseMetrics("g 1", 3000));
    expect(history.before(10_000), "a counter that disappears is a restart too").toBeNull();
  });
});

describe("FigureReader", () => {
  const scrape = (frames: number, ticks: readonly [one: number, twelve: number]) =>
    [
      "lightcone_sessions 2.0",
      "lightcone_queue_length 1.0",
      "lightcone_suspended_sessions 4.0",
      `lightcone_frames_total{fate="sent"} ${frames}`,
      'lightcone_admissions_total{world="pong"} 3.0',
      'lightcone_admissions_total{world="doom"} 7.0',
      exposition("lightcone_tick_seconds", 'batch="12",world="pong"', [0, ticks[1], 0, 0]),
      exposition("lightcone_tick_seconds", 'batch="2",world="pong"', [ticks[0], 0, 0, 0]),
      exposition("lightcone_action_to_frame_seconds", "", [0, 0, 0, ticks[0]]),
    ].join("\n");

  it("reports gauges and totals at once, and rates and times from the second scrape on", () => {
    const reader = new FigureReader();
    const first = reader.read(parseMetrics(scrape(0, [0, 0]), 0));
    expect(first).toMatchObject({ sessions: 2, queue: 1, suspended: 4, batch: null, sent: null, actionToFrame: null, ticks: [] });
    expect(new FigureReader().read(parseMetrics("", 0)).suspended, "not reported by the server").toBeNull();
    expect(first.admissions).toEqual([
      { label: "doom", lately: null, total: 7 },
      { label: "pong", lately: null, total: 3 },
    ]);
    const second = reader.read(parseMetrics(scrape(120, [30, 10]), 2000));
    expect(second).toMatchObject({ sent: 60, replaced: 0, batch: (2 * 30 + 12 * 10) / 40 });
    expect(second.ticks.map(({ labels, perSecond }) => [labels["batch"], perSecond])).toEqual([["2", 15], ["12", 5]]);
    expect(second.ticks[0]?.p50.ms).toBeCloseTo(5);
    expect(second.actionToFrame?.p99).toEqual({ ms: 40, beyond: true });
    expect(second.admissions[0]?.lately).toBe(0);
  });
});
