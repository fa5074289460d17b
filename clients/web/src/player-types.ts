/**
 * The statistics, events and options of `Player`. Knows no canvas.
 */

import type { ClientEvents, ClientOptions } from "./client-types";
import type { Figure } from "./drift";
import type { LightconeError } from "./errors";
import type { FrameMessage, Timings } from "./protocol";
import type { Take } from "./take";

export interface PlayerStats {
  /** Frames presented per second, over the last second. */
  readonly fps: number;
  /** Median over recent actions, from input event to screen; null before the first. */
  readonly actionToPhotonMs: number | null;
  readonly framesPresented: number;
  /** Index of the newest frame presented in this session; null before the first. */
  readonly lastFrameIndex: number | null;
  /** Number of the current run; the server counts starts and rewinds. */
  readonly run: number | null;
  /** Number of the newest frame within the run. */
  readonly runFrame: number | null;
  /** The newest act that the frame on the screen reflects. */
  readonly appliedSeq: number | null;
  /** The newest act sent. */
  readonly sentSeq: number;
  readonly state: string;
  readonly timings: Timings | null;
  /** Per figure, the distance of recent pictures from the world's usual mean, in usual deviations; null if unknown. */
  readonly drift: Readonly<Record<Figure, number | null>>;
  /** The past frame on the screen; null while the screen shows the newest frame. */
  readonly scrubbedTo: number | null;
  /** Chunks shown and total chunks, while a take is played. */
  readonly replay: readonly [number, number] | null;
}

export interface PlayerEvents extends Omit<ClientEvents, "frame"> {
  /** The set of held buttons has changed. */
  buttons(pressed: readonly string[]): void;
  presented(frame: FrameMessage): void;
  undecodable(error: LightconeError): void;
  /** The last frame of the take is on the screen, and the world is paused there. */
  replayed(): void;
}

export interface PlayerOptions extends Omit<ClientOptions, "world" | "events" | "pacing"> {
  /** A take to play before the player takes over. */
  readonly take?: Take;
  /** For a branch: the picture from which the original run started, if any. */
  readonly image?: Uint8Array | null;
}
