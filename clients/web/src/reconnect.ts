/**
 * What to make of a connection that ended: whether waiting mends it, how long to wait, and what to say.
 *
 * Owns this policy as plain functions. Knows no socket and no clock.
 */

import type { ServerRefusal } from "./errors";
import type { ErrorCode } from "./protocol";

const FIRST_DELAY_MS = 250;
const LONGEST_DELAY_MS = 8000;

/** Refusals that waiting does not mend, or that should not be answered by coming back at once. */
const HOPELESS: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  "bad_message",
  "bad_version",
  "unknown_world",
  "unknown_start",
  "unknown_branch",
  "unsupported",
  "image_too_large",
  "bad_image",
  "message_too_large",
  "origin_refused",
  "unauthorized",
  // Taking it back, or staying though nobody is there, is for the player to say.
  "taken_over",
  "idle",
]);

/** Close codes that mean the same: policy violation and message too big (RFC 6455, section 7.4.1). */
const HOPELESS_CLOSE: ReadonlySet<number> = new Set([1008, 1009]);

/** How long to wait before attempt `attempt` (from 1): doubling, bounded, spread by `random` in [0, 1). */
export function backoffMs(attempt: number, random: number): number {
  const delay = Math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** (attempt - 1));
  return Math.round(delay * (0.75 + 0.5 * random));
}

/** Whether trying again is of no use. `refusal`: the error that ended the session, if the server sent one. */
export function isHopeless(refusal: ServerRefusal | null, closeCode: number): boolean {
  return refusal ? HOPELESS.has(refusal.code) : HOPELESS_CLOSE.has(closeCode);
}

export function describeClose(code: number, reason: string, hadSession: boolean): string {
  if (reason) return `${reason} (close code ${code})`;
  if (code === 1006) return hadSession ? "the connection was lost" : "the server cannot be reached";
  return `the server closed the connection (close code ${code})`;
}
