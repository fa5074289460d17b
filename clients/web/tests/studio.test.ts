import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { DriftMeter, pictureFigures } from "../src/drift";
import { padAxes } from "../src/page/gamepad";
import type { FrameMessage, LoggedInput, WorldInfo } from "../src/protocol";
import { Replay } from "../src/replay";
import { decodeTake, encodeTake, numChunks, unknownInputs, takeOf, type Take } from "../src/take";
import { Timeline } from "../src/timeline";

const frame = (run: number, run_frame: number): FrameMessage => ({ run, run_frame }) as FrameMessage;
const numbers = (timeline: Timeline): number[] => timeline.kept.map(({ run_frame }) => run_frame);

describe("Timeline", () => {
  it("keeps the frames within the limit, counting dropped frames too", () => {
    const timeline = new Timeline(3);
    for (const n of [0, 1, 2, 4, 5]) timeline.push(frame(0, n));
    expect(numbers(timeline)).toEqual([2, 4, 5]);
    expect(timeline.newest?.run_frame).toBe(5);
  });

  it("keeps the frames before a rewind, and none before a new start", () => {
    const timeline = new Timeline(10);
    for (let n = 0; n < 5; n += 1) timeline.push(frame(0, n));
    timeline.push(frame(1, 2));
    timeline.push(frame(1, 3));
    expect(numbers(timeline)).toEqual([0, 1, 2, 3]);
    expect(timeline.kept[2]?.run).toBe(1);
    timeline.push(frame(2, 0));
    expect(numbers(timeline)).toEqual([0]);
  });

  it("has a stop at the end of each chunk", () => {
    const timeline = new Timeline(20);
    for (let n = 0; n < 9; n += 1) timeline.push(frame(0, n));
    expect(timeline.stops(4).map(({ run_frame }) => run_frame)).toEqual([0, 4, 8]);
  });
});

describe("a take as text", () => {
  const take: Take = {
    world: "doom",
    start: { index: 2 },
    seed: 77,
    inputs: [
      { num_chunks: 12, buttons: ["forward", "left"], axes: {} },
      { num_chunks: 1, buttons: [], axes: { look: -0.125 } },
    ],
  };

  it("survives encoding and decoding", async () => {
    const text = await encodeTake(take);
    expect(text).toMatch(/^[\w-]+$/);
    const decoded = await decodeTake(text);
    expect(decoded).toEqual({ ...take, inputs: [{ ...take.inputs[0], axes: { look: 0 } }, take.inputs[1]] });
    expect(numChunks(decoded)).toBe(13);
  });

  it("can start from a picture", async () => {
    const image = Uint8Array.from([1, 2, 250, 251]);
    const decoded = await decodeTake(await encodeTake({ ...take, start: { image } }));
    expect(decoded.start).toEqual({ image });
  });

  it.each(["", "nonsense", "a".repeat(300)])("is not decoded from %j", async (text) => {
    await expect(decodeTake(text)).rejects.toThrow(/take cannot be read/);
  });

  it("is not created from a run with an unknown start", () => {
    const log = { type: "action_log", seq: 1, start_index: null, seed: 1, inputs: [], complete: true } as const;
    expect(() => takeOf("doom", log, null)).toThrow(/does not have/);
    expect(takeOf("doom", log, Uint8Array.of(1)).start).toEqual({ image: Uint8Array.of(1) });
  });

  it("lists inputs that a world does not have", () => {
    const world = { buttons: [{ name: "forward" }], axes: [{ name: "look" }] } as unknown as WorldInfo;
    expect(unknownInputs(take, world)).toEqual(["left"]);
  });
});

describe("Replay", () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());

  it("sends every input once, slightly ahead of the screen, and ends with the last frame", () => {
    const inputs: LoggedInput[] = [
      { num_chunks: 4, buttons: ["up"], axes: {} },
      { num_chunks: 2, buttons: [], axes: {} },
    ];
    const sent: string[] = [];
    const done = vi.fn();
    const take = { world: "w", start: { index: 0 }, seed: 1, inputs };
    const replay = new Replay(take, 100, ({ buttons }) => sent.push(buttons.join()), done);
    replay.start();
    vi.advanceTimersByTime(1000);
    expect(sent).toHaveLength(3);
    for (let chunk = 1; chunk <= 6; chunk += 1) {
      replay.presented(chunk);
      vi.advanceTimersByTime(100);
    }
    expect(sent).toEqual(["up", "up", "up", "up", "", ""]);
    expect(done).toHaveBeenCalledTimes(1);
    vi.advanceTimersByTime(1000);
    expect(sent).toHaveLength(6);
  });

  it("provides an input for each step of a paused world", () => {
    const sent: string[] = [];
    const take = { world: "w", start: { index: 0 }, seed: 1, inputs: [{ num_chunks: 5, buttons: ["up"], axes: {} }] };
    const replay = new Replay(take, 100, ({ buttons }) => sent.push(buttons.join()), () => undefined);
    replay.start();
    vi.advanceTimersByTime(1000);
    expect(sent).toHaveLength(3);
    for (let step = 0; step < 4; step += 1) replay.sendNext();
    expect(sent).toHaveLength(5);
    replay.stop();
  });

  it("ends at once if the take is empty", () => {
    const done = vi.fn();
    new Replay({ world: "w", start: { index: 0 }, seed: 1, inputs: [] }, 100, () => undefined, done).start();
    vi.advanceTimersByTime(150);
    expect(done).toHaveBeenCalledTimes(1);
  });
});

describe("drift", () => {
  /** A picture of two columns, each of one grey level. */
  const picture = (left: number, right: number): Uint8ClampedArray =>
    Uint8ClampedArray.from([0, 1].flatMap(() => [left, left, left, 255, right, right, right, 255]));

  it("is measured as the server defines it", () => {
    const figures = pictureFigures(picture(10, 30), 2, 2, picture(10, 26));
    expect(figures).toEqual({ brightness: 20, contrast: 10, sharpness: 10, motion: 2 });
  });

  it("is the distance from the mean in deviations, after a second of pictures", () => {
    const meter = new DriftMeter({ brightness: { mean: 15, deviation: 2.5 } }, 4);
    expect(meter.distance("brightness")).toBeNull();
    for (let n = 0; n < 6; n += 1) meter.push(picture(10, 30), 2, 2, n > 0);
    expect(meter.distance("brightness")).toBe(2);
    expect(meter.distance("motion")).toBeNull();
    meter.push(picture(0, 0), 2, 2, false);
    expect(meter.distance("brightness")).toBeNull();
  });
});

describe("padAxes", () => {
  const axes = [{ name: "look", label: "Look", low: -1, high: 1, source: "mouse_x" }];
  const pad = (push: number) => ({ buttons: [], axes: [0, 0, push, 0] });

  it("moves the axes of the mouse with the right stick, outside its dead zone", () => {
    expect(padAxes(pad(0.1), axes, 0.05, 20)).toEqual([]);
    expect(padAxes(pad(-1), axes, 0.05, 20)).toEqual([["look", -0.5]]);
    expect(padAxes(pad(1), [{ ...axes[0]!, source: "" }], 0.05, 20)).toEqual([]);
  });
});
