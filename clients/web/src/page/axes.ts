/**
 * Sliders for the axes that the mouse does not move.
 *
 * Owns the sliders, and what a player is told of each axis; with the mouse's, every axis can be moved. A slider holds its
 * axis at its value while a pointer is down on it, and returns to rest then, like a stick; moved by keys, it holds until it
 * loses the focus. Knows no socket.
 */

import type { AxisInfo, WorldInfo } from "../protocol";
import type { AxisTarget } from "./look";

/** Positions of a slider from one end to the other. */
const NUM_STEPS = 200;
/** The axes of the standard gamepad layout, by the number in an axis's source. */
const STICKS = ["left stick ↔", "left stick ↕", "right stick ↔", "right stick ↕"];

/** Whether movement of the mouse or of a finger on the picture moves the axis. */
export function isMouseAxis({ source }: AxisInfo): boolean {
  return source === "mouse_x" || source === "mouse_y";
}

/** The axis of the standard gamepad layout that moves this one; null if none does. */
export function stickOf({ source }: AxisInfo): number | null {
  const number = Number(/^gamepad_(\d+)$/.exec(source)?.[1] ?? STICKS.length);
  return number < STICKS.length ? number : null;
}

/** Where an axis is when nothing moves it: at 0, or at the end of its range that is nearest to 0. */
export function restOf({ low, high }: AxisInfo): number {
  return Math.min(high, Math.max(low, 0));
}

export class AxisSliders {
  private rests: (() => void)[] = [];

  /** `done` is called when a pointer lets go of a slider, so that the keys go to the picture again. */
  constructor(
    private readonly holder: HTMLElement,
    private readonly target: () => AxisTarget | null,
    private readonly done: () => void,
  ) {
    window.addEventListener("blur", () => this.rests.forEach((rest) => rest()));
  }

  /** Shows one slider for each axis of the world that the mouse does not move. */
  bind(world: WorldInfo): void {
    const axes = world.axes.filter((axis) => !isMouseAxis(axis));
    this.rests = [];
    this.holder.hidden = axes.length === 0;
    this.holder.replaceChildren(...axes.map((axis) => this.slider(axis)));
  }

  private slider(axis: AxisInfo): HTMLElement {
    const { name, label, low, high } = axis;
    const input = document.createElement("input");
    input.type = "range";
    [input.min, input.max, input.step] = [String(low), String(high), String((high - low) / NUM_STEPS)];
    input.dataset["axis"] = name;
    const rest = (): void => {
      input.value = String(restOf(axis));
      this.target()?.holdAxis(name, 0);
    };
    input.addEventListener("input", () => this.target()?.holdAxis(name, Number(input.value)));
    input.addEventListener("blur", rest);
    for (const type of ["pointerup", "pointercancel"]) {
      input.addEventListener(type, () => {
        input.blur();
        this.done();
      });
    }
    input.value = String(restOf(axis));
    this.rests.push(rest);
    const stick = stickOf(axis);
    return field(stick === null ? label : `${label} (${STICKS[stick]})`, input);
  }
}

function field(text: string, input: HTMLInputElement): HTMLElement {
  const label = document.createElement("label");
  const words = document.createElement("span");
  words.textContent = text;
  label.append(words, input);
  return label;
}
