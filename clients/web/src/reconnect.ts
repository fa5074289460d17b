/**
 * The reconnect policy: whether to try again after a connection has ended, how long to wait, and what to tell the player.
 *
 * Consists of plain functions. Knows no socket and no clock.
 */

import type { ServerRefusal } from "./errors";
import type { ErrorCode } from "./protocol";

const FIRST_DELAY_MS = 250;
const LONGEST_DELAY_MS = 8000;

/** Refusals after which a client must not reconnect by itself. */
const PERMANENT_REFUSALS: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
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
  // The player decides whether to take the session back, or to continue after being idle.
  "taken_over",
  "idle",
]);

/** Close codes with the same meaning: policy violation and message too big (RFC 6455, section 7.4.1). */
const PERMANENT_CLOSE_CODES: ReadonlySet<number> = new Set([1008, 1009]);

/** The delay before attempt `attempt` (from 1): exponential, bounded, with jitter from `random` in [0, 1). */
export function backoffMs(attempt: number, random: number): number {
  const delay = Math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** (attempt - 1));
  return Math.round(delay * (0.75 + 0.5 * random));
}

/** Whether reconnecting is pointless. `refusal`: the error that ended the session, if the server sent one. */
export function isPermanentFailure(refusal: ServerRefusal | null, closeCode: number): boolean {
  return refusal ? PERMANENT_REFUSALS.has(refusal.code) : PERMANENT_CLOSE_CODES.has(closeCode);
}

/** @deprecated The old name of `isPermanentFailure`. */
export const isHopeless = isPermanentFailure;

/** Describes a closed connection for the player. */
export function describeClose(code: number, reason: string, hadSession: boolean): string {
  if (reason) return `${reason} (close code ${code})`;
  if (code === 1006) return hadSession ? "the connection was lost" : "the server cannot be reached";
  return `the server closed the connection (close code ${code})`;
}
