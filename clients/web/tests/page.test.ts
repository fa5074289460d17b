import { describe, expect, it } from "vitest";
import { ConnectionLost, ServerRefusal } from "../src/errors";
import { HeldAxes } from "../src/held-axes";
import { restOf } from "../src/page/axes";
import { padButtons, padHolds, strongestHolds, type PadReading } from "../src/page/gamepad";
import { keyCap } from "../src/page/keys";
import { sentence, stateLabel, stateNotice } from "../src/page/view";

describe("keyCap", () => {
  it.each([
    ["ArrowUp", "↑"],
    ["KeyW", "W"],
    ["Digit1", "1"],
    ["Numpad5", "Num 5"],
    ["F1", "F1"],
  ])("writes %s as %s", (code, cap) => expect(keyCap(code)).toBe(cap));
});

describe("padButtons", () => {
  const pad = (pressed: number[], axes: number[] = [0, 0]): PadReading => ({
    buttons: Array.from({ length: 17 }, (_, index) => ({ pressed: pressed.includes(index) })),
    axes,
  });
  const names = ["left", "up", "fire", "jump"];

  it("reads directions from the d-pad, and from the stick beyond its threshold", () => {
    expect([...padButtons(pad([12]), names)]).toEqual(["up"]);
    expect([...padButtons(pad([], [-0.9, -0.9]), names)]).toEqual(["left", "up"]);
    expect([...padButtons(pad([], [-0.3, 0.9]), names)]).toEqual([]);
  });

  it("maps the other buttons to the face buttons in the card's order", () => {
    expect([...padButtons(pad([0]), names)]).toEqual(["fire"]);
    expect([...padButtons(pad([1]), names)]).toEqual(["jump"]);
  });

  it("accepts a gamepad with fewer buttons and axes than the standard layout", () => {
    expect([...padButtons({ buttons: [], axes: [] }, names)]).toEqual([]);
  });
});

describe("axes with a stick of their own", () => {
  const axis = (source: string, low = -2, high = 1) => ({ name: source, label: source, low, high, source });
  const pad = (...axes: number[]): PadReading => ({ buttons: [], axes });

  it("are held where the stick is, over their whole range, and let go in its dead zone", () => {
    const axes = [axis("gamepad_0"), axis("gamepad_3", 0, 4), axis("gamepad_17"), axis("mouse_x")];
    expect([...padHolds(pad(-0.5, 0, 0, 1), axes)]).toEqual([["gamepad_0", -1], ["gamepad_3", 4]]);
    expect([...padHolds(pad(0.1), axes)]).toEqual([["gamepad_0", 0], ["gamepad_3", 0]]);
  });

  it("follow the gamepad that is pushed, whichever of two it is", () => {
    const axes = [axis("gamepad_0")];
    expect([...strongestHolds([pad(-0.5), pad(0)], axes)]).toEqual([["gamepad_0", -1]]);
    expect([...strongestHolds([pad(0), pad(-0.5)], axes)]).toEqual([["gamepad_0", -1]]);
    expect([...strongestHolds([pad(0), pad(0)], axes)]).toEqual([["gamepad_0", 0]]);
  });

  it("leave the stick's directions to the axis", () => {
    expect([...padButtons(pad(-1, -1), ["left", "up"], [axis("gamepad_0")])]).toEqual(["up"]);
  });

  it("rest at 0 or at the end of the range nearest to it", () => {
    expect([restOf(axis("", -1, 1)), restOf(axis("", 0.2, 1)), restOf(axis("", -3, -2))]).toEqual([0, 0.2, -2]);
  });
});

describe("HeldAxes", () => {
  it("move by their value per chunk of time, at the speed that is played, and not for a time that was missed", () => {
    const held = new HeldAxes(50);
    held.hold("gas", 0.5);
    held.hold("wheel", -1);
    expect(held.movement(1000, 1).map(([axis, moved]) => [axis, Math.abs(moved)])).toEqual([["gas", 0], ["wheel", 0]]);
    expect(held.movement(1025, 2)).toEqual([["gas", 0.5], ["wheel", -1]]);
    held.hold("gas", 0);
    expect(held.movement(60_000, 1)).toEqual([["wheel", -2]]);
    expect(held.chunk()).toEqual({ wheel: -1 });
    held.clear();
    expect([held.movement(60_010, 1), held.isEmpty]).toEqual([[], true]);
  });
});

describe("the texts of the page", () => {
  it("show no notice while playing or paused", () => {
    expect(stateNotice({ name: "playing" })).toBeNull();
    expect(stateNotice({ name: "paused" })).toBeNull();
  });

  it("give the position in the queue, and the wait if it is known", () => {
    expect(stateLabel({ name: "queued", position: 3, etaSeconds: null, returning: false })).toBe("Queued, position 3");
    expect(stateNotice({ name: "queued", position: 3, etaSeconds: null, returning: false })?.text).toBe("You are number 3 in the queue.");
    expect(stateNotice({ name: "queued", position: 1, etaSeconds: 12.4, returning: false })?.text).toContain("About 12\u00a0s.");
  });

  it("say what would have to end for a session that waits beside another one", () => {
    const waiting = (position: number, returning: boolean) =>
      stateNotice({ name: "queued", position, etaSeconds: null, returning }, true);
    expect(waiting(1, false)).toEqual({
      title: "All slots are in use",
      text: "You are number 1 in the queue. It plays at once if you end the world beside it.",
      action: "End the world beside it",
    });
    expect(waiting(3, true)?.title).toBe("Others are playing now");
    expect(waiting(3, false)?.text).toContain("Ending the world beside it makes room");
    expect(waiting(3, true)?.action).toBe("Pause the world beside it");
    const reason = new ServerRefusal("server_full", "8 playing and 32 queued are all this server takes");
    const full = { name: "reconnecting", attempt: 1, delayMs: 250, reason } as const;
    expect(stateNotice(full)?.action).toBe("Try now");
    expect(stateNotice(full, true)).toMatchObject({ title: "The server is full", action: "End the world beside it" });
  });

  it("give the reason for reconnecting and offer to try now", () => {
    const reason = new ConnectionLost("the connection was lost");
    expect(stateNotice({ name: "reconnecting", attempt: 3, delayMs: 2100, reason })).toEqual({
      title: "No connection",
      text: "The connection was lost. Trying again in about 2\u00a0s.",
      action: "Try now",
    });
  });

  it("show the server's message after a refusal", () => {
    const reason = new ServerRefusal("unknown_world", 'no world "doom"; served: pong');
    const notice = stateNotice({ name: "failed", reason });
    expect(notice?.title).toBe("This server does not have this world");
    expect(notice?.text).toBe('No world "doom"; served: pong.');
  });

  it("are sentences", () => {
    expect(sentence("it broke")).toBe("It broke.");
    expect(sentence("Why?")).toBe("Why?");
  });
});
