import { describe, expect, it } from "vitest";
import { Playout, type Playable } from "../src/playout";

function make(intervalMs: number) {
  const dropped: number[] = [];
  return { playout: new Playout<Playable>(intervalMs, (item) => dropped.push(item.index)), dropped };
}

/** Picture `index` of a world with `size` pictures per chunk. */
function picture(index: number, size: number, run = 0): Playable {
  return { index, chunk: Math.floor(index / size), run, end_of_chunk: index % size === size - 1 };
}

describe("one picture per chunk", () => {
  it("shows each at once, and the newest wins", () => {
    const { playout, dropped } = make(33);
    playout.push(picture(0, 1), 0);
    expect(playout.take(0)?.index).toBe(0);
    playout.push(picture(1, 1), 1);
    playout.push(picture(2, 1), 2);
    expect(playout.take(2)?.index).toBe(2);
    expect(dropped).toEqual([1]);
    expect(playout.take(3)).toBeNull();
    expect(playout.isEmpty).toBe(true);
  });

  it("discards a picture that was decoded late", () => {
    const { playout, dropped } = make(33);
    playout.push(picture(5, 1), 0);
    playout.push(picture(4, 1), 1);
    expect(playout.take(1)?.index).toBe(5);
    expect(dropped).toEqual([4]);
  });

  it("accepts low indices again after a reset", () => {
    const { playout } = make(33);
    playout.push(picture(5, 1), 0);
    playout.reset();
    playout.push(picture(0, 1), 1);
    expect(playout.take(1)?.index).toBe(0);
  });
});

describe("several pictures per chunk", () => {
  it("spreads a burst over time at the world's rate", () => {
    const { playout, dropped } = make(10);
    for (let index = 0; index < 4; index += 1) playout.push(picture(index, 4), 0);
    const shown: [number, number | undefined][] = [0, 5, 10, 20, 30].map((t) => [t, playout.take(t)?.index]);
    expect(shown).toEqual([
      [0, 0],
      [5, undefined],
      [10, 1],
      [20, 2],
      [30, 3],
    ]);
    expect(dropped).toEqual([]);
  });

  it("continues with a chunk that arrived early, without a gap", () => {
    const { playout } = make(10);
    for (let index = 0; index < 8; index += 1) playout.push(picture(index, 4), index < 4 ? 0 : 25);
    const shown = [];
    for (let t = 0; t <= 70; t += 10) shown.push(playout.take(t)?.index);
    expect(shown).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
  });

  it("keeps at most one chunk waiting behind the one being shown", () => {
    const { playout, dropped } = make(10);
    for (let index = 0; index < 12; index += 1) playout.push(picture(index, 4), 0);
    expect(dropped).toEqual([0, 1, 2, 3]);
    expect(playout.take(0)?.index).toBe(4);
    expect(playout.take(10)?.index).toBe(5);
    for (let t = 20; t <= 60; t += 10) playout.take(t);
    expect(playout.take(70)?.index).toBe(11);
    expect(playout.isEmpty).toBe(true);
  });

  it("shows a restart at once", () => {
    const { playout, dropped } = make(10);
    for (let index = 0; index < 4; index += 1) playout.push(picture(index, 4), 0);
    playout.push({ index: 4, chunk: 1, run: 1, end_of_chunk: true }, 1);
    expect(playout.take(1)?.index).toBe(4);
    expect(dropped).toEqual([0, 1, 2, 3]);
  });
});
