/**
 * The figures beside the picture: frame rate, latency, sessions and drift.
 *
 * Owns their elements and the number formats. Receives the statistics to show; requests the number of sessions itself.
 */

import { FIGURES, type Figure } from "../drift";
import type { PlayerStats } from "../player-types";
import { element, milliseconds } from "./dom";

const POLL_MS = 2000;
/** Range of a meter, and the distance from which it warns, in standard deviations. */
const METER_RANGE = 4;
const WARN_DISTANCE = 2;

export class Hud {
  private readonly meters = new Map<Figure, HTMLElement>();

  constructor() {
    const list = document.createElement("ul");
    for (const figure of FIGURES) {
      const row = document.createElement("li");
      const name = document.createElement("span");
      name.textContent = figure.charAt(0).toUpperCase() + figure.slice(1);
      const meter = document.createElement("span");
      meter.className = "meter";
      meter.setAttribute("role", "img");
      meter.append(document.createElement("i"));
      row.append(name, meter);
      list.append(row);
      this.meters.set(figure, meter);
    }
    element("drift", HTMLElement).append(list);
    setInterval(() => void this.refreshPlayers(), POLL_MS);
    void this.refreshPlayers();
  }

  show(stats: PlayerStats): void {
    const playing = stats.state === "playing";
    element("hud-fps", HTMLElement).textContent = playing ? `${stats.fps.toFixed(1)} fps` : "–";
    element("hud-latency", HTMLElement).textContent = milliseconds(stats.actionToPhotonMs);
    element("hud-step", HTMLElement).textContent = milliseconds(stats.timings?.step_ms ?? null);
    element("hud-frame", HTMLElement).textContent = stats.runFrame === null ? "–" : String(stats.runFrame);
    element("hud-batch", HTMLElement).textContent = stats.timings ? String(stats.timings.batch_size) : "–";
    this.showDrift(stats.drift);
  }

  private showDrift(drift: PlayerStats["drift"]): void {
    const known = FIGURES.some((figure) => drift[figure] !== null);
    if (known) element("drift", HTMLElement).hidden = false;
    for (const [figure, meter] of this.meters) {
      const distance = drift[figure];
      const place = distance === null ? 0 : Math.max(-METER_RANGE, Math.min(METER_RANGE, distance));
      meter.style.setProperty("--place", String(0.5 + place / (2 * METER_RANGE)));
      meter.dataset["unusual"] = String(distance !== null && Math.abs(distance) > WARN_DISTANCE);
      const words = distance === null ? "not known yet" : `${Math.abs(distance).toFixed(1)} standard deviations ${distance < 0 ? "below" : "above"} the mean`;
      meter.setAttribute("aria-label", words);
      meter.title = words;
    }
  }

  /** Hides the meters until the next world reports its drift. */
  reset(): void {
    element("drift", HTMLElement).hidden = true;
  }

  private async refreshPlayers(): Promise<void> {
    if (document.visibilityState === "hidden") return;
    const response = await fetch("readyz", { cache: "no-store" }).catch(() => null);
    if (!response?.ok) return;
    const { playing, waiting } = (await response.json()) as { playing: number; waiting: number };
    element("hud-players", HTMLElement).textContent = waiting > 0 ? `${playing} (${waiting})` : String(playing);
  }
}
