/**
 * Two branches of a world side by side.
 *
 * Owns the second stage and who is steered: the stage that was touched last, or both. Each stage is a session of its own;
 * closing one leaves the other as it is.
 */

import type { Player } from "../player";
import type { WorldInfo } from "../protocol";
import type { Target } from "./controls";
import type { Mover } from "./look";

export interface Stage {
  readonly element: HTMLElement;
  readonly player: Player;
}

/** An empty stage for a branch of this world. */
export function makeStage(world: WorldInfo): { readonly element: HTMLElement; readonly canvas: HTMLCanvasElement } {
  const element = document.createElement("div");
  element.className = "stage";
  element.tabIndex = 0;
  element.setAttribute("role", "application");
  element.setAttribute("aria-label", `Branch of ${world.title}`);
  const canvas = document.createElement("canvas");
  canvas.width = world.width;
  canvas.height = world.height;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `A branch of ${world.title}, as the model imagines it`);
  element.append(canvas);
  return { element, canvas };
}

export class Branches {
  private first: Stage | null = null;
  private second: Stage | null = null;
  private steered: Stage | null = null;
  private both = false;
  private readonly bar = this.makeBar();

  /** `changed` hears when another stage is steered, or there are more or fewer. */
  constructor(
    private readonly holder: HTMLElement,
    private readonly changed: (steered: Stage) => void,
  ) {
    holder.addEventListener("pointerdown", ({ target }) => this.steerAt(target));
    holder.addEventListener("focusin", ({ target }) => this.steerAt(target));
  }

  /** The player that playback, timeline and figures belong to. */
  get active(): Player | null {
    return this.steered?.player ?? null;
  }

  has(player: Player): boolean {
    return this.first?.player === player || this.second?.player === player;
  }

  isSecond(player: Player): boolean {
    return this.second?.player === player;
  }

  /** Gives the keys to the stage that is steered. */
  focus(): void {
    this.steered?.element.focus({ preventScroll: true });
  }

  /** One stage alone, as for another world. */
  reset(stage: Stage): void {
    const { first, second } = this;
    this.first = stage;
    this.second = null;
    this.steer(stage);
    first?.player.close();
    if (second) drop(second);
  }

  /** A second stage beside the first; it is steered from now on. */
  add(stage: Stage): void {
    const { second } = this;
    this.letGo();
    this.second = stage;
    this.holder.append(stage.element);
    this.steer(stage);
    if (second) drop(second);
  }

  /** Leaves the first stage alone. */
  close(): void {
    const { first, second } = this;
    if (!first || !second) return;
    this.second = null;
    this.steer(first);
    drop(second);
  }

  /** What keys, fingers and pads act on. */
  target(): (Target & Mover) | null {
    const players = this.steeredPlayers();
    if (players.length === 0) return null;
    const each = (act: (player: Player) => void): void => players.forEach(act);
    return {
      press: (button, holder, at) => each((player) => player.press(button, holder, at)),
      release: (button, holder, at) => each((player) => player.release(button, holder, at)),
      releaseAll: () => each((player) => player.releaseAll()),
      move: (axis, amount, at) => each((player) => player.move(axis, amount, at)),
    };
  }

  private steeredPlayers(): Player[] {
    const stages = this.both && this.second ? [this.first, this.second] : [this.steered];
    return stages.flatMap((stage) => (stage ? [stage.player] : []));
  }

  /** Before others are steered: keys that come up later would not reach these. */
  private letGo(): void {
    for (const player of this.steeredPlayers()) player.releaseAll();
  }

  private steerAt(place: EventTarget | null): void {
    const touched = [this.first, this.second].find((stage) => place instanceof Node && stage?.element.contains(place));
    if (!touched || touched === this.steered) return;
    this.letGo();
    this.steer(touched);
  }

  private steer(stage: Stage): void {
    const focused = this.steered?.element.contains(document.activeElement) === true;
    this.steered = stage;
    this.holder.dataset["count"] = this.second ? "2" : "1";
    if (this.second) this.holder.append(this.bar);
    else this.bar.remove();
    for (const each of [this.first, this.second]) {
      const steered = this.second !== null && (this.both || each === stage);
      each?.element.classList.toggle("steered", steered);
      each?.element.setAttribute("aria-current", String(steered));
    }
    if (focused) this.focus();
    this.changed(stage);
  }

  /** What stands below two stages: steer both, close. */
  private makeBar(): HTMLElement {
    const bar = document.createElement("div");
    bar.className = "branch-bar";
    const both = barButton("steer-both", "Steer both", (event) => {
      this.letGo();
      this.both = !this.both;
      both.setAttribute("aria-pressed", String(this.both));
      if (this.steered) this.steer(this.steered);
      if (event.detail > 0) this.focus();
    });
    both.setAttribute("aria-pressed", "false");
    const close = barButton("close-branch", "Close branch", () => {
      this.close();
      this.focus();
    });
    bar.append(both, close);
    return bar;
  }
}

function drop(stage: Stage): void {
  stage.player.close();
  stage.element.remove();
}

function barButton(id: string, label: string, action: (event: MouseEvent) => void): HTMLButtonElement {
  const button = document.createElement("button");
  button.type = "button";
  button.id = id;
  button.textContent = label;
  button.addEventListener("click", action);
  return button;
}
