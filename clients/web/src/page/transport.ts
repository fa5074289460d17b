/**
 * Speed, branch and the timeline below the picture.
 *
 * Owns the slider: its positions are the frames that can be rewound to; the last is the newest frame. Moving it pauses and
 * shows a past frame; "Play from here" rewinds to it. The page decides which player it controls.
 */

import type { Player } from "../player";
import { element } from "./dom";

export class Transport {
  readonly scrub = element("scrub", HTMLInputElement);
  readonly fromHere = element("from-here", HTMLButtonElement);
  readonly branch = element("branch", HTMLButtonElement);
  readonly speed = element("speed", HTMLSelectElement);
  private readonly time = element("scrub-time", HTMLElement);
  private readonly past = element("past", HTMLElement);

  constructor(private readonly player: () => Player | null) {
    this.scrub.addEventListener("input", () => this.onScrub());
    this.scrub.addEventListener("keydown", (event) => {
      if (event.code === "Enter") this.fromHere.click();
    });
    this.speed.addEventListener("change", () => player()?.client.setSpeed(Number(this.speed.value)));
  }

  /** Shows the player's speed, the length of its timeline and which frame is shown. */
  refresh(live: boolean): void {
    const player = this.player();
    const stops = live && player ? player.stops() : [];
    this.speed.value = String(player?.client.speed ?? 1);
    const shown = player?.stats.scrubbedTo ?? null;
    const last = Math.max(0, stops.length - 1);
    this.scrub.max = String(last);
    this.scrub.disabled = stops.length < 2;
    this.speed.disabled = this.branch.disabled = stops.length === 0;
    const position = shown === null ? last : Math.max(0, stops.findIndex(({ run_frame }) => run_frame === shown));
    if (document.activeElement !== this.scrub || shown === null) this.scrub.value = String(position);
    this.fromHere.disabled = shown === null;
    const behind = shown === null || !player ? 0 : this.secondsBehind(player, shown);
    const words = shown === null ? "now" : `${behind.toFixed(1)} s ago`;
    if (this.time.textContent !== words) this.time.textContent = words;
    this.scrub.setAttribute("aria-valuetext", words);
    this.past.hidden = shown === null;
    this.past.textContent = `Frame ${shown ?? 0}, ${words}`;
  }

  private secondsBehind(player: Player, runFrame: number): number {
    return ((player.timeline.newest?.run_frame ?? runFrame) - runFrame) / player.world.fps;
  }

  private onScrub(): void {
    const player = this.player();
    const frame = player?.stops()[Number(this.scrub.value)];
    if (!player || !frame) return;
    player.scrub(frame);
    this.refresh(true);
  }
}
