/**
 * The texts of the page: state, notices, figures, the lists of worlds and starts.
 *
 * Owns the elements of index.html and their texts. Knows no socket and no input; the page tells it what to show.
 */

import type { ClientState } from "../client-types";
import { ServerRefusal } from "../errors";
import type { ErrorCode, WorldInfo } from "../protocol";
import { element } from "./dom";

/** Titles for refusals that end the session; the server's own message is shown below. */
const REFUSALS: Partial<Record<ErrorCode, string>> = {
  bad_version: "This page and the server use different protocol versions; reload the page",
  unknown_world: "This server does not have this world",
  unknown_branch: "This branch is no longer available",
  origin_refused: "The server does not accept this page's address",
  server_full: "The server is full",
  too_many_connections: "Too many connections from your address; try again shortly",
  unauthorized: "This server requires a token",
  not_ready: "The server is warming up",
  shutting_down: "The server is restarting",
  taken_over: "This session was opened elsewhere",
  idle: "Are you still there?",
};

/** Labels of the button below such a title; "Reload the page" by default. */
const REMEDIES: Partial<Record<ErrorCode, string>> = {
  taken_over: "Play it here",
  idle: "Continue",
  unauthorized: "Enter a token",
};

const END_OTHER = "End the world beside it";
const PAUSE_OTHER = "Pause the world beside it";
const MAKES_ROOM = "Ending the world beside it makes room.";

type QueuedState = Extract<ClientState, { readonly name: "queued" }>;

const TOAST_MS = 6000;
/** Time without a frame after which the page says that it waits for frames. */
const STALL_MS = 1500;

export interface Notice {
  readonly title: string;
  readonly text: string;
  /** Label of the button below, if any. */
  readonly action?: string;
}

/** A short label of the state, for the header. */
export function stateLabel(state: ClientState): string {
  switch (state.name) {
    case "connecting":
      return "Connecting";
    case "queued":
      return `Queued, position ${state.position}`;
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

/** The notice over the picture in this state; null if there is none. `beside`: whether the page shows another session. */
export function stateNotice(state: ClientState, beside = false): Notice | null {
  switch (state.name) {
    case "queued":
      return queueNotice(state, beside);
    case "reconnecting": {
      const text = `${sentence(state.reason.message)} Trying again in about ${seconds(state.delayMs / 1000)}.`;
      const title = refusalTitle(state.reason) ?? "No connection";
      if (beside && lacksRoom(state)) return { title, text: `${text} ${MAKES_ROOM}`, action: END_OTHER };
      return { title, text, action: "Try now" };
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

/** Whether a session waits for others to leave: in the queue, or without a place in it. */
export function lacksRoom(state: ClientState): boolean {
  if (state.name !== "reconnecting") return state.name === "queued";
  return state.reason instanceof ServerRefusal && state.reason.code === "server_full";
}

function queueNotice({ position, etaSeconds, returning }: QueuedState, beside: boolean): Notice {
  const wait = etaSeconds === null ? "" : ` About ${seconds(etaSeconds)}.`;
  const title = returning ? "Others are playing now" : "All slots are in use";
  const text = `You are number ${position} in the queue.${wait}`;
  if (!beside) return { title, text };
  // It has its slot, so that the time of the other world is all it needs.
  if (returning) return { title, text: `${text} Pausing the world beside it makes room.`, action: PAUSE_OTHER };
  const hint = position === 1 ? "It plays at once if you end the world beside it." : MAKES_ROOM;
  return { title, text: `${text} ${hint}`, action: END_OTHER };
}

/** The title for a refusal that ends a session; null if there is only the server's own message. */
export function refusalTitle(reason: Error): string | null {
  return reason instanceof ServerRefusal ? (REFUSALS[reason.code] ?? null) : null;
}

/** Formats a wait in whole seconds, at least one, with a non-breaking space. */
export function seconds(wait: number): string {
  return `${Math.max(1, Math.round(wait))}\u00a0s`;
}

/** Capitalizes the first letter and adds a full stop if needed. */
export function sentence(text: string): string {
  const trimmed = text.trim();
  const punctuated = /[.!?]$/.test(trimmed) ? trimmed : `${trimmed}.`;
  return punctuated.charAt(0).toUpperCase() + punctuated.slice(1);
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
  private lastFrameAt = 0;
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
    this.canvas.setAttribute("aria-label", `${world.title}, generated by the model`);
    element("start-field", HTMLElement).hidden = world.starts.length < 2;
    this.starts.replaceChildren(...world.starts.map((name, index) => new Option(name, String(index))));
  }

  /** Moves the overlays of the picture to this stage. */
  moveOverlays(stage: HTMLElement): void {
    for (const overlay of this.overlays) if (overlay.parentElement !== stage) stage.append(overlay);
  }

  /** Shows how to look around, or hides the hint. */
  hintLook(text: string | null): void {
    const hint = element("look-hint", HTMLElement);
    hint.hidden = text === null;
    hint.textContent = text ?? "";
  }

  /** `beside`: whether the page shows another session. */
  showState(state: ClientState, beside = false): void {
    const pill = element("state", HTMLElement);
    pill.dataset["state"] = state.name;
    this.setStateText(stateLabel(state));
    const live = state.name === "playing" || state.name === "paused";
    for (const button of this.sessionButtons()) button.disabled = !live;
    this.starts.disabled = !live;
    const paused = state.name === "paused";
    this.pause.dataset["paused"] = String(paused);
    (this.pause.querySelector("span") as HTMLElement).textContent = paused ? "Play" : "Pause";
    this.showNotice(stateNotice(state, beside));
  }

  private sessionButtons(): HTMLButtonElement[] {
    const playback = [this.pause, this.step, this.restart, this.nextStart, this.upload, this.camera];
    return [...playback, this.record, this.copyLink, this.saveTake, this.openTake];
  }

  /** Sets the text of the state, only if it changes, since screen readers announce each update. */
  private setStateText(label: string): void {
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
   * Tells the player when frames stop arriving, and shows the progress of a take. `replay`: chunks shown and total chunks of
   * the take; null if none is played.
   */
  showFlow(state: string, fps: number, replay: readonly [number, number] | null): void {
    const now = performance.now();
    if (state !== "playing" || fps > 0) this.lastFrameAt = now;
    const playing = replay === null ? "Playing" : "Playing a take";
    if (state === "playing") this.setStateText(now - this.lastFrameAt > STALL_MS ? "Waiting for frames" : playing);
    element("take", HTMLElement).hidden = replay === null;
    const words = replay === null ? "" : `Playing a take: ${replay[0]} of ${replay[1]}`;
    const label = element("take-place", HTMLElement);
    if (label.textContent !== words) label.textContent = words;
  }

  /** Shows a short message below the picture for a few seconds. */
  toast(text: string): void {
    const toast = element("toast", HTMLElement);
    toast.textContent = text;
    toast.hidden = false;
    clearTimeout(this.toastTimer);
    this.toastTimer = setTimeout(() => (toast.hidden = true), TOAST_MS);
  }

  /** Hides the hints of shortcuts whose keys the world binds. */
  hintShortcuts(isBound: (code: string) => boolean): void {
    const branch = element("branch", HTMLButtonElement);
    const hints = { KeyP: this.pause, Period: this.step, KeyR: this.restart, KeyN: this.nextStart, KeyB: branch };
    for (const [code, button] of Object.entries(hints)) {
      const cap = button.querySelector("kbd");
      if (cap) cap.hidden = isBound(code);
    }
  }
}
