/**
 * A gamepad that presses the world's buttons and moves its axes.
 *
 * Owns the mapping of the standard layout (w3.org/TR/gamepad, section "Remapping"): buttons named after a direction are
 * mapped to the d-pad and the left stick, the others to the face and shoulder buttons in the card's order, the axes of the
 * mouse to the right stick, and an axis whose source is "gamepad_N" to axis N of the layout. A stick that moves an axis
 * presses no buttons. The Gamepad API has no button events, so gamepads are polled in animation frames while
 * one is connected.
 */

import type { AxisInfo, WorldInfo } from "../protocol";
import { restOf, stickOf } from "./axes";
import type { AxisTarget } from "./look";

/** The part of `Gamepad` that is used. */
export interface PadReading {
  readonly buttons: readonly { readonly pressed: boolean }[];
  readonly axes: readonly number[];
}

/** Deflection from which the left stick counts as pushed in a direction. */
const STICK_THRESHOLD = 0.5;
/** Dead zone of sticks that move axes. */
const DEAD_ZONE = 0.15;
/** Movement per chunk at full deflection, as a share of the axis's maximum. */
const FULL_PUSH_SHARE = 0.5;
const STICKS: Readonly<Record<string, number>> = { mouse_x: 2, mouse_y: 3 };

const DIRECTIONS: Readonly<Record<string, { readonly button: number; readonly axis: number; readonly sign: number }>> = {
  up: { button: 12, axis: 1, sign: -1 },
  forward: { button: 12, axis: 1, sign: -1 },
  down: { button: 13, axis: 1, sign: 1 },
  back: { button: 13, axis: 1, sign: 1 },
  left: { button: 14, axis: 0, sign: -1 },
  right: { button: 15, axis: 0, sign: 1 },
};

/** Returns the world's buttons that a reading presses. `axes`: those of the world, whose sticks press nothing. */
export function padButtons(pad: PadReading, names: readonly string[], axes: readonly AxisInfo[] = []): Set<string> {
  const sticks = new Set(axes.map(stickOf));
  const others = names.filter((name) => !(name in DIRECTIONS));
  const held = names.filter((name) => {
    const direction = DIRECTIONS[name];
    if (!direction) return pad.buttons[others.indexOf(name)]?.pressed === true;
    const push = sticks.has(direction.axis) ? 0 : (pad.axes[direction.axis] ?? 0) * direction.sign;
    return pad.buttons[direction.button]?.pressed === true || push > STICK_THRESHOLD;
  });
  return new Set(held);
}

/** Returns how far a reading moves each axis in `seconds`, in a world with `chunksPerSecond`. */
export function padAxes(
  pad: PadReading,
  axes: readonly AxisInfo[],
  seconds: number,
  chunksPerSecond: number,
): [string, number][] {
  return axes.flatMap(({ name, source, high }): [string, number][] => {
    const push = pad.axes[STICKS[source] ?? -1] ?? 0;
    if (Math.abs(push) < DEAD_ZONE) return [];
    return [[name, push * high * FULL_PUSH_SHARE * seconds * chunksPerSecond]];
  });
}

/** Returns the value at which a reading holds each of the axes that a stick of its own moves; 0 for one at rest. */
export function padHolds(pad: PadReading, axes: readonly AxisInfo[]): Map<string, number> {
  const holds = new Map<string, number>();
  for (const axis of axes) {
    const stick = stickOf(axis);
    const push = stick === null ? 0 : (pad.axes[stick] ?? 0);
    const rest = restOf(axis);
    const reach = push < 0 ? rest - axis.low : axis.high - rest;
    if (stick !== null) holds.set(axis.name, Math.abs(push) < DEAD_ZONE ? 0 : rest + push * reach);
  }
  return holds;
}

/** Returns the values of the sticks that are pushed furthest, so that a gamepad at rest does not undo another's push. */
export function strongestHolds(pads: readonly PadReading[], axes: readonly AxisInfo[]): Map<string, number> {
  const strongest = new Map<string, number>();
  for (const [axis, value] of pads.flatMap((pad) => [...padHolds(pad, axes)])) {
    if (Math.abs(value) >= Math.abs(strongest.get(axis) ?? 0)) strongest.set(axis, value);
  }
  return strongest;
}

export interface ButtonTarget {
  press(button: string, holder: string, at: number): void;
  release(button: string, holder: string, at: number): void;
}

export class GamepadInput {
  private held = new Set<string>();
  private readonly holds = new Map<string, number>();
  private polling = false;
  private polledAt = 0;

  constructor(
    private readonly world: () => WorldInfo | null,
    private readonly target: () => (ButtonTarget & AxisTarget) | null,
  ) {
    window.addEventListener("gamepadconnected", () => this.schedulePoll());
  }

  private schedulePoll(): void {
    if (this.polling) return;
    this.polling = true;
    requestAnimationFrame((now) => this.poll(now));
  }

  private poll(now: number): void {
    const pads = navigator.getGamepads().filter((pad) => pad !== null);
    const world = this.world();
    const names = world?.buttons.map(({ name }) => name) ?? [];
    const axes = world?.axes ?? [];
    const held = new Set(pads.flatMap((pad) => [...padButtons(pad, names, axes)]));
    const target = this.target();
    const at = performance.now();
    for (const button of held) if (!this.held.has(button)) target?.press(button, "pad", at);
    for (const button of this.held) if (!held.has(button)) target?.release(button, "pad", at);
    this.held = held;
    for (const [axis, value] of strongestHolds(pads, axes)) this.hold(axis, value, target);
    const seconds = Math.min(0.1, Math.max(0, (now - this.polledAt) / 1000));
    this.polledAt = now;
    if (world) {
      const rate = world.fps / world.chunk_frames;
      for (const [axis, amount] of pads.flatMap((pad) => padAxes(pad, world.axes, seconds, rate))) {
        target?.move(axis, amount, at);
      }
    }
    this.polling = false;
    if (pads.length === 0) for (const axis of this.holds.keys()) this.hold(axis, 0, target);
    if (pads.length > 0) this.schedulePoll();
  }

  /** Passes on a stick's new value, but not that it still is at rest: a slider may hold the axis. */
  private hold(axis: string, value: number, target: AxisTarget | null): void {
    if ((this.holds.get(axis) ?? 0) === value) return;
    this.holds.set(axis, value);
    target?.holdAxis(axis, value);
  }
}
