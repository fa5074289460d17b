import { describe, expect, it } from "vitest";
import { ConnectionLost, ServerRefusal } from "../src/errors";
import { padButtons, type PadReading } from "../src/page/gamepad";
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
