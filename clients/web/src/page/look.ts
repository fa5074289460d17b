/**
 * Looking around: mouse and finger movement on a picture moves the world's axes.
 *
 * Owns pointer lock and the sensitivity. A click captures the mouse and Esc releases it; a finger drags. Knows no socket.
 * Only axes whose source is "mouse_x" or "mouse_y" are moved; axes.ts has sliders for the others.
 */

import type { AxisInfo, WorldInfo } from "../protocol";
import { isMouseAxis } from "./axes";

/** Movement per pixel, as a share of the axis's maximum per chunk. */
const MOUSE_SHARE = 0.012;
const FINGER_SHARE = 0.02;

export interface AxisTarget {
  move(axis: string, amount: number, at: number): void;
  /** Moves an axis by `value` in every chunk until the next call; 0 stops. */
  holdAxis(axis: string, value: number): void;
}

export class Look {
  private axes: readonly AxisInfo[] = [];

  constructor(
    private readonly stages: HTMLElement,
    private readonly target: () => AxisTarget | null,
  ) {
    stages.addEventListener("pointerdown", (event) => this.onDown(event));
    stages.addEventListener("pointermove", (event) => this.onMove(event));
  }

  /** Binds the axes of a world. Returns the hint for the player, or null if the world has no such axis. */
  bind(world: WorldInfo): string | null {
    this.axes = world.axes.filter(isMouseAxis);
    this.stages.dataset["looks"] = String(this.axes.length > 0);
    if (this.isLocked()) document.exitPointerLock();
    return this.axes.length > 0 ? "Click the picture to look around with the mouse (Esc releases it), or drag with a finger." : null;
  }

  private onDown(event: PointerEvent): void {
    const stage = stageAt(event);
    if (this.axes.length === 0 || !stage || event.target instanceof HTMLButtonElement) return;
    stage.focus({ preventScroll: true });
    if (event.pointerType === "mouse") {
      // Rejected if the page is in a frame or Esc was just pressed; dragging works anyway.
      void Promise.resolve(stage.requestPointerLock()).catch(() => undefined);
    } else {
      stage.setPointerCapture(event.pointerId);
    }
  }

  private onMove(event: PointerEvent): void {
    const held = event.buttons > 0 || this.isLocked();
    if (this.axes.length === 0 || !stageAt(event) || !held) return;
    const share = event.pointerType === "mouse" ? MOUSE_SHARE : FINGER_SHARE;
    for (const { name, source, high } of this.axes) {
      const pixels = source === "mouse_x" ? event.movementX : event.movementY;
      if (pixels !== 0) this.target()?.move(name, pixels * share * high, event.timeStamp);
    }
  }

  private isLocked(): boolean {
    return document.pointerLockElement?.parentElement === this.stages;
  }
}

function stageAt({ target }: Event): HTMLElement | null {
  return target instanceof Element ? target.closest<HTMLElement>(".stage") : null;
}
