/**
 * Pauses what a hidden page plays, and plays on when it is shown again.
 *
 * A hidden page presents nothing, so its worlds would stand still anyway; paused ones are asked whether there is time for
 * them before they go on. Owns which players were paused for this reason.
 */

import type { Player } from "../player";

export class HiddenPause {
  private readonly paused = new Set<Player>();

  constructor(players: () => readonly Player[]) {
    document.addEventListener("visibilitychange", () => {
      if (document.visibilityState === "hidden") players().forEach((player) => this.pause(player));
      else this.resume();
    });
  }

  /** Whether the player wants to play, and is paused only while the page is hidden. */
  has(player: Player): boolean {
    return this.paused.has(player);
  }

  private pause(player: Player): void {
    if (player.client.state.name !== "playing" || player.stats.replay !== null) return;
    this.paused.add(player);
    player.togglePause();
  }

  private resume(): void {
    for (const player of this.paused) if (player.client.state.name === "paused") player.togglePause();
    this.paused.clear();
  }
}
