/**
 * What the page says: state, notices, figures, the list of worlds and starts.
 *
 * Owns the elements of index.html and the words in them. Knows no socket and no input; it is told what to show.
 */

import type { ClientState } from "../client";
import { ServerRefusal } from "../errors";
import type { ErrorCode, WorldInfo } from "../protocol";
import { element } from "./dom";

/** Headlines for refusals that end the session; the server's own message stands below them. */
const REFUSALS: Partial<Record<ErrorCode, string>> = {
  bad_version: "This page and the server speak different versions; reload the page",
  unknown_world: "This world is not served here",
  unknown_branch: "This branch is no longer kept",
  origin_refused: "The server does not accept this page's address",
  server_full: "The server is full",
  too_many_connections: "Too many connections from your address; wait a little",
  unauthorized: "This server asks for a token",
  not_ready: "The server is warming up",
  shutting_down: "The server is restarting",
  taken_over: "This session goes on elsewhere",
  idle: "Are you still there?",
};

/** What the button below such a headline does; reloading the page, by default. */
const REMEDIES: Partial<Record<ErrorCode, string>> = {
  taken_over: "Play it here",
  idle: "Go on",
  unauthorized: "Enter a token",
};

const TOAST_MS = 6000;
/** Without a frame for as long, a world is said to be waited for. */
const PATIENCE_MS = 1500;

export interface Notice {
  readonly title: string;
  readonly text: string;
  /** Label of the button below, if there is something to do. */
  readonly action?: string;
}

/** The state in a word or two, for the pill in the header. */
export function stateLabel(state: ClientState): string {
  switch (state.name) {
    case "connecting":
      return "Connecting";
    case "queued":
      return `Queued, place ${state.position}`;
    case "playing":
      return "Playing";
    case "paused":
      return "Paused";
    case "reconnecting":
      return "Reconnecting";
    case "failed":
      return "Stopped";
    case "closed":
      return "Disconnected";
  }
}

/** What to lay over the picture in this state; null where the picture speaks for itself. */
export function stateNotice(state: ClientState): Notice | null {
  switch (state.name) {
    case "queued": {
      const wait = state.etaSeconds === null ? "" : ` About ${seconds(state.etaSeconds)}.`;
      return { title: "Every place is taken", text: `You are number ${state.position} in the queue.${wait}` };
    }
    case "reconnecting": {
      const text = `${sentence(state.reason.message)} Trying again in about ${seconds(state.delayMs / 1000)}.`;
      return { title: refusalTitle(state.reason) ?? "No connection", text, action: "Try now" };
    }
    case "failed":
      return {
        title: refusalTitle(state.reason) ?? "Cannot play",
        text: sentence(state.reason.message),
        action: (state.reason instanceof ServerRefusal && REMEDIES[state.reason.code]) || "Reload the page",
      };
    default:
      return null;
  }
}

/** What a refusal that ends a session means, in a line; null where there is only the server's own message. */
export function refusalTitle(reason: Error): string | null {
  return reason instanceof ServerRefusal ? (REFUSALS[reason.code] ?? null) : null;
}

/** A wait in whole seconds, at least one; the number and its unit stay on one line. */
export function seconds(wait: number): string {
  return `${Math.max(1, Math.round(wait))}\u00a0s`;
}

/** Starts with a capital and ends with a full stop. */
export function sentence(text: string): string {
  const trimmed = text.trim();
  const closed = /[.!?]$/.test(trimmed) ? trimmed : `${trimmed}.`;
  return closed.charAt(0).toUpperCase() + closed.slice(1);
}

export class View {
  readonly stage = element("stage", HTMLElement);
  readonly canvas = element("screen", HTMLCanvasElement);
  readonly pad = element("pad", HTMLElement);
  readonly worlds = element("worlds", HTMLElement);
  readonly starts = element("start", HTMLSelectElement);
  readonly pause = element("pause", HTMLButtonElement);
  readonly step = element("step", HTMLButtonElement);
  readonly restart = element("restart", HTMLButtonElement);
  readonly nextStart = element("next-start", HTMLButtonElement);
  readonly upload = element("upload", HTMLButtonElement);
  readonly camera = element("camera", HTMLButtonElement);
  readonly copyLink = element("copy-link", HTMLButtonElement);
  readonly saveTake = element("save-take", HTMLButtonElement);
  readonly openTake = element("open-take", HTMLButtonElement);
  readonly record = element("record", HTMLButtonElement);
  readonly takeOver = element("take-over", HTMLButtonElement);
  readonly retry = element("notice-retry", HTMLButtonElement);
  private readonly overlays = [element("past", HTMLElement), element("notice", HTMLElement)];
  private flowedAt = 0;
  private toastTimer: ReturnType<typeof setTimeout> | undefined;

  showWorld(world: WorldInfo): void {
    document.title = `${world.title} · Lightcone`;
    element("title", HTMLElement).textContent = world.title;
    element("about", HTMLElement).textContent = world.description;
    document.documentElement.style.setProperty("--aspect", String(world.width / world.height));
    document.documentElement.dataset["pixelated"] = String(world.pixelated === true);
    this.canvas.width = world.width;
    this.canvas.height = world.height;
    this.stage.setAttribute("aria-label", world.title);
    this.canvas.setAttribute("aria-label", `${world.title}, as the model imagines it`);
    element("start-field", HTMLElement).hidden = world.starts.length < 2;
    this.starts.replaceChildren(...world.starts.map((name, index) => new Option(name, String(index))));
  }

  /** Lays what is said over the picture onto this stage. */
  cover(stage: HTMLElement): void {
    for (const overlay of this.overlays) if (overlay.parentElement !== stage) stage.append(overlay);
  }

  /** Says how to look around, where one can. */
  hintLook(text: string | null): void {
    const hint = element("look-hint", HTMLElement);
    hint.hidden = text === null;
    hint.textContent = text ?? "";
  }

  showState(state: ClientState): void {
    const pill = element("state", HTMLElement);
    pill.dataset["state"] = state.name;
    this.sayState(stateLabel(state));
    const live = state.name === "playing" || state.name === "paused";
    for (const button of this.needsSession()) button.disabled = !live;
    this.starts.disabled = !live;
    const paused = state.name === "paused";
    this.pause.dataset["paused"] = String(paused);
    (this.pause.querySelector("span") as HTMLElement).textContent = paused ? "Play" : "Pause";
    this.showNotice(stateNotice(state));
  }

  private needsSession(): HTMLButtonElement[] {
    const playback = [this.pause, this.step, this.restart, this.nextStart, this.upload, this.camera];
    return [...playback, this.record, this.copyLink, this.saveTake, this.openTake];
  }

  /** Sets the pill's words; only when they change, as screen readers announce each setting. */
  private sayState(label: string): void {
    const words = element("state", HTMLElement).querySelector("span");
    if (words && words.textContent !== label) words.textContent = label;
  }

  showNotice(notice: Notice | null): void {
    element("notice", HTMLElement).hidden = notice === null;
    element("notice-title", HTMLElement).textContent = notice?.title ?? "";
    element("notice-text", HTMLElement).textContent = notice?.text ?? "";
    this.retry.hidden = notice?.action === undefined;
    this.retry.textContent = notice?.action ?? "";
  }

  /**
   * A picture that stands still without a word is the worst a stream can do to its player. `replay`: how far a take has
   * been played; null where none is.
   */
  showFlow(state: string, fps: number, replay: readonly [number, number] | null): void {
    const now = performance.now();
    if (state !== "playing" || fps > 0) this.flowedAt = now;
    const playing = replay === null ? "Playing" : "Playing a take";
    if (state === "playing") this.sayState(now - this.flowedAt > PATIENCE_MS ? "Waiting for frames" : playing);
    element("take", HTMLElement).hidden = replay === null;
    const words = replay === null ? "" : `Playing a take: ${replay[0]} of ${replay[1]}`;
    const place = element("take-place", HTMLElement);
    if (place.textContent !== words) place.textContent = words;
  }

  /** Says something in passing, below the picture. */
  toast(text: string): void {
    const toast = element("toast", HTMLElement);
    toast.textContent = text;
    toast.hidden = false;
    clearTimeout(this.toastTimer);
    this.toastTimer = setTimeout(() => (toast.hidden = true), TOAST_MS);
  }

  /** Hides the hints of shortcuts that the world binds for itself. */
  hintShortcuts(isBound: (code: string) => boolean): void {
    const branch = element("branch", HTMLButtonElement);
    const hints = { KeyP: this.pause, Period: this.step, KeyR: this.restart, KeyN: this.nextStart, KeyB: branch };
    for (const [code, button] of Object.entries(hints)) {
      const cap = button.querySelector("kbd");
      if (cap) cap.hidden = isBound(code);
    }
  }
}
