/**
 * The sessions of this tab across a reload.
 *
 * Owns what is kept of a session, and when: in the tab's session storage, from the moment the page goes away or is hidden
 * until it comes back. While the page is shown nothing is there, since a duplicated tab gets a copy of the storage and
 * would take the session away. No browser says whether a page is closed or reloaded, so the server is told only that it
 * goes away; it holds the slots for as long as a reload takes.
 */

import type { Player } from "../player";
import type { PlayerOptions } from "../player-types";
import type { HiddenPause } from "./hidden";

const KEY = "lightcone-sessions";

export interface SavedSession {
  readonly world: string;
  readonly ticket: string;
  readonly paused: boolean;
  readonly speed: number | null;
  /** The ticket of the branch that it began with, to begin there again if the session is gone. */
  readonly branch: string | null;
}

/** What is kept of a player's session; null if there is none, or if it plays a take. `paused`: by the player. */
export function savedSession({ world, client, stats }: Player, paused: boolean): SavedSession | null {
  const ticket = client.resumeTicket;
  if (ticket === null || stats.replay !== null) return null;
  return { world: world.name, ticket, paused, speed: client.speed, branch: client.startedFrom.branch ?? null };
}

/** The options of a player that takes a session back. */
export function optionsOf({ ticket, paused, speed, branch }: SavedSession): Partial<PlayerOptions> {
  return { ticket, paused, speed, ...(branch !== null && { start: { branch } }) };
}

/** Returns the sessions that the page had before it was reloaded, and forgets them. */
export function takeSavedSessions(): SavedSession[] {
  const text = sessionStorage.getItem(KEY);
  sessionStorage.removeItem(KEY);
  try {
    const saved: unknown = JSON.parse(text ?? "[]");
    return Array.isArray(saved) ? saved.filter(isSaved) : [];
  } catch (error) {
    if (error instanceof SyntaxError) return []; // written by another version of the page
    throw error;
  }
}

function isSaved(value: unknown): value is SavedSession {
  return typeof value === "object" && value !== null && "ticket" in value && "world" in value;
}

/** Keeps the sessions of `players` when the page goes away. `hidden`: those that are paused only while it is hidden. */
export function keepSessions(players: () => readonly Player[], hidden: HiddenPause): void {
  const saved = (player: Player): SavedSession | null =>
    savedSession(player, player.client.isPaused && !hidden.has(player));
  const save = (): void => {
    const sessions = players().flatMap((player) => saved(player) ?? []);
    if (sessions.length > 0) sessionStorage.setItem(KEY, JSON.stringify(sessions));
  };
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "hidden") save(); // a phone may end a hidden page without a further event
    else sessionStorage.removeItem(KEY);
  });
  window.addEventListener("pagehide", () => {
    save();
    for (const player of players()) saved(player) ? player.leave() : player.close();
  });
  window.addEventListener("pageshow", ({ persisted }) => {
    if (persisted) location.reload(); // the browser had kept the page, but not its connections
  });
}
