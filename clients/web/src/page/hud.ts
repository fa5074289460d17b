/**
 * The figures beside the picture: rate, latency, sessions, and how far the world has drifted from itself.
 *
 * Owns their elements and how numbers are written. Told what to show; the number of sessions it asks the server for.
 */

import { FIGURES, type Figure } from "../drift";
import type { PlayerStats } from "../player";
import { element, milliseconds } from "./dom";

const ASK_MS = 2000;
/** Deviations at the ends of a meter, and from where on it warns. */
const METER_ENDS = 4;
const UNUSUAL = 2;

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
    setInterval(() => void this.askForPlayers(), ASK_MS);
    void this.askForPlayers();
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
      const place = distance === null ? 0 : Math.max(-METER_ENDS, Math.min(METER_ENDS, distance));
      meter.style.setProperty("--place", String(0.5 + place / (2 * METER_ENDS)));
      meter.dataset["unusual"] = String(distance !== null && Math.abs(distance) > UNUSUAL);
      const words = distance === null ? "not known yet" : `${Math.abs(distance).toFixed(1)} deviations ${distance < 0 ? "below" : "above"} usual`;
      meter.setAttribute("aria-label", words);
      meter.title = words;
    }
  }

  /** Forgets the meters: another world has others. */
  reset(): void {
    element("drift", HTMLElement).hidden = true;
  }

  private async askForPlayers(): Promise<void> {
    if (document.visibilityState === "hidden") return;
    const response = await fetch("readyz", { cache: "no-store" }).catch(() => null);
    if (!response?.ok) return;
    const { playing, waiting } = (await response.json()) as { playing: number; waiting: number };
    element("hud-players", HTMLElement).textContent = waiting > 0 ? `${playing} (${waiting})` : String(playing);
  }
}
