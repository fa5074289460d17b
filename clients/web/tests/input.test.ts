import { describe, expect, it } from "vitest";
import { InputState } from "../src/input";

const free = { buttons: ["up", "down", "fire"], exclusive: false };

describe("InputState", () => {
  it("reports a change only on the first holder's press and the last holder's release", () => {
    const input = new InputState(free);
    expect(input.press("up", "key:ArrowUp")).toBe(true);
    expect(input.press("up", "key:KeyW")).toBe(false);
    expect(input.release("up", "key:ArrowUp")).toBe(false);
    expect(input.pressed()).toEqual(["up"]);
    expect(input.release("up", "key:KeyW")).toBe(true);
    expect(input.pressed()).toEqual([]);
  });

  it("ignores repeated presses by one holder and releases of buttons that are not held", () => {
    const input = new InputState(free);
    input.press("up", "key:ArrowUp");
    expect(input.press("up", "key:ArrowUp")).toBe(false);
    expect(input.release("down", "key:ArrowDown")).toBe(false);
  });

  it("returns buttons in the card's order, whatever the order of the presses", () => {
    const input = new InputState(free);
    input.press("fire", "a");
    input.press("up", "b");
    expect(input.pressed()).toEqual(["up", "fire"]);
  });

  it("lets the newest press win in an exclusive world, and falls back to the older one", () => {
    const input = new InputState({ ...free, exclusive: true });
    input.press("up", "a");
    expect(input.press("down", "b")).toBe(true);
    expect(input.pressed()).toEqual(["down"]);
    expect(input.release("up", "a")).toBe(false);
    input.press("up", "a");
    expect(input.release("up", "a")).toBe(true);
    expect(input.pressed()).toEqual(["down"]);
  });

  it("releases everything at once", () => {
    const input = new InputState(free);
    expect(input.releaseAll()).toBe(false);
    input.press("up", "a");
    input.press("down", "touch:1");
    expect(input.releaseAll()).toBe(true);
    expect(input.pressed()).toEqual([]);
  });

  it("names the unknown button and the known ones in the error", () => {
    expect(() => new InputState(free).press("jump", "a")).toThrow(/"jump".*up, down, fire/);
  });
});
