import { describe, expect, it } from "vitest";
import { LatencyTracker, RateMeter, median } from "../src/stats";

describe("median", () => {
  it("is the middle value, or the mean of the middle two", () => {
    expect(median([5, 1, 3])).toBe(3);
    expect(median([4, 1, 3, 2])).toBe(2.5);
    expect(median([])).toBeNull();
  });
});

describe("RateMeter", () => {
  it("measures a steady stream exactly", () => {
    const meter = new RateMeter();
    for (let frame = 0; frame <= 90; frame += 1) meter.mark((frame * 1000) / 30);
    expect(meter.rate(3000)).toBeCloseTo(30, 6);
  });

  it("falls to zero when the stream stops, and never divides by zero", () => {
    const meter = new RateMeter();
    expect(meter.rate(0)).toBe(0);
    meter.mark(0);
    meter.mark(0);
    expect(meter.rate(0)).toBe(0);
    meter.mark(50);
    expect(meter.rate(60)).toBeCloseTo(40, 6);
    expect(meter.rate(2000)).toBe(0);
  });
});

describe("LatencyTracker", () => {
  it("times each action to the first frame that covers it", () => {
    const latency = new LatencyTracker();
    expect(latency.medianMs()).toBeNull();
    latency.sent(1, 100);
    latency.presented(0, 110);
    expect(latency.medianMs()).toBeNull();
    latency.presented(1, 140);
    latency.presented(1, 170);
    expect(latency.medianMs()).toBe(40);
  });

  it("lets one frame cover several actions", () => {
    const latency = new LatencyTracker();
    latency.sent(1, 0);
    latency.sent(2, 10);
    latency.sent(3, 20);
    latency.presented(2, 50);
    expect(latency.medianMs()).toBe(45);
    latency.presented(3, 50);
    expect(latency.medianMs()).toBe(40);
  });

  it("keeps only the recent samples", () => {
    const latency = new LatencyTracker(3);
    for (let seq = 1; seq <= 6; seq += 1) {
      latency.sent(seq, 0);
      latency.presented(seq, seq <= 3 ? 1000 : 20);
    }
    expect(latency.medianMs()).toBe(20);
  });

  it("drops the actions that were pending at a pause", () => {
    const latency = new LatencyTracker();
    latency.sent(1, 0);
    latency.dropPending();
    latency.presented(1, 60_000);
    expect(latency.medianMs()).toBeNull();
  });
});
