/**
 * Mouse and finger on a picture as movement of an axis: looking around.
 *
 * Owns pointer lock and how far a pixel turns. A click captures the mouse, Esc gives it back; a finger drags. Knows no
 * socket; only worlds with an axis whose source is "mouse_x" or "mouse_y" are looked around in.
 */

import type { AxisInfo, WorldInfo } from "../protocol";

/** Movement a pixel, as a share of what one chunk can take. */
const MOUSE_SHARE = 0.012;
const FINGER_SHARE = 0.02;

export interface Mover {
  move(axis: string, amount: number, at: number): void;
}

export class Look {
  private axes: readonly AxisInfo[] = [];

  constructor(
    private readonly stages: HTMLElement,
    private readonly target: () => Mover | null,
  ) {
    stages.addEventListener("pointerdown", (event) => this.onDown(event));
    stages.addEventListener("pointermove", (event) => this.onMove(event));
  }

  /** Looks along the axes of this world. Returns what to tell the player, or null where there is nothing to look with. */
  bind(world: WorldInfo): string | null {
    this.axes = world.axes.filter(({ source }) => source === "mouse_x" || source === "mouse_y");
    this.stages.dataset["looks"] = String(this.axes.length > 0);
    if (this.isLocked()) document.exitPointerLock();
    return this.axes.length > 0 ? "Click the picture to look around with the mouse (Esc gives it back), or drag with a finger." : null;
  }

  private onDown(event: PointerEvent): void {
    const stage = stageAt(event);
    if (this.axes.length === 0 || !stage || event.target instanceof HTMLButtonElement) return;
    stage.focus({ preventScroll: true });
    if (event.pointerType === "mouse") {
      // Refused where the page is framed or Esc was pressed a moment ago; dragging works all the same.
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
