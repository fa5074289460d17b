/**
 * Two branches of a world side by side.
 *
 * Owns the second stage and who is steered: the stage that was clicked last, or both. Each stage is a session of its own;
 * closing one leaves the other as it is.
 */

import type { Player } from "../player";
import type { Target } from "./controls";
import type { Mover } from "./look";

export interface Stage {
  readonly element: HTMLElement;
  readonly player: Player;
}

export class Branches {
  private first: Stage | null = null;
  private second: Stage | null = null;
  private steered: Stage | null = null;
  private both = false;
  private bar: HTMLElement | null = null;

  /** `changed` hears when another player is steered, or there are more or fewer. */
  constructor(
    private readonly holder: HTMLElement,
    private readonly changed: () => void,
  ) {}

  /** The player that playback, timeline and figures belong to. */
  get active(): Player | null {
    return this.steered?.player ?? null;
  }

  get isSplit(): boolean {
    return this.second !== null;
  }

  /** One stage alone, as for another world. */
  reset(stage: Stage): void {
    this.first?.player.close();
    if (this.second) this.drop(this.second);
    this.first = this.steered = stage;
    this.second = null;
    this.mark();
  }

  /** A second stage beside the first; it is steered from now on. */
  add(stage: Stage): void {
    if (this.second) this.drop(this.second);
    this.second = this.steered = stage;
    this.bar = this.makeBar();
    this.holder.append(stage.element, this.bar);
    stage.element.addEventListener("pointerdown", () => this.steer(stage));
    stage.element.addEventListener("focusin", () => this.steer(stage));
    this.mark();
  }

  /** The first stage was clicked. */
  steerFirst(): void {
    if (this.first) this.steer(this.first);
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

  close(): void {
    if (this.second) this.drop(this.second);
    this.second = null;
    this.steered = this.first;
    this.mark();
  }

  private steeredPlayers(): Player[] {
    const stages = this.both && this.second ? [this.first, this.second] : [this.steered];
    return stages.flatMap((stage) => (stage ? [stage.player] : []));
  }

  private steer(stage: Stage): void {
    if (this.steered === stage) return;
    for (const player of this.steeredPlayers()) player.releaseAll();
    this.steered = stage;
    this.mark();
  }

  private drop(stage: Stage): void {
    stage.player.close();
    stage.element.remove();
    this.bar?.remove();
  }

  private mark(): void {
    this.holder.dataset["count"] = this.second ? "2" : "1";
    for (const stage of [this.first, this.second]) {
      stage?.element.classList.toggle("steered", this.isSplit && (this.both || stage === this.steered));
    }
    this.changed();
  }

  /** What stands below two stages: steer both, close. */
  private makeBar(): HTMLElement {
    const bar = document.createElement("div");
    bar.className = "branch-bar";
    const both = document.createElement("button");
    both.type = "button";
    both.id = "steer-both";
    both.textContent = "Steer both";
    both.setAttribute("aria-pressed", String(this.both));
    both.addEventListener("click", () => {
      for (const player of this.steeredPlayers()) player.releaseAll();
      this.both = !this.both;
      both.setAttribute("aria-pressed", String(this.both));
      this.mark();
    });
    const close = document.createElement("button");
    close.type = "button";
    close.id = "close-branch";
    close.textContent = "Close branch";
    close.addEventListener("click", () => this.close());
    bar.append(both, close);
    return bar;
  }
}
