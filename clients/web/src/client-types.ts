/**
 * The states, events and options of `LightconeClient`. Knows no socket.
 */

import type { LightconeError, ServerRefusal } from "./errors";
import type { FrameMessage, HelloMessage, ReceiptMessage, StartFrom, WelcomeMessage } from "./protocol";

/** Whether the welcome is of a resumed session. */
export function isResumed(welcome: WelcomeMessage): boolean {
  return (welcome.generation ?? 0) > 0;
}

export type ClientState =
  | { readonly name: "connecting" }
  /** `returning`: the session waits in its slot, because others were admitted while it was paused. */
  | { readonly name: "queued"; readonly position: number; readonly etaSeconds: number | null; readonly returning: boolean }
  | { readonly name: "playing" }
  | { readonly name: "paused" }
  | { readonly name: "reconnecting"; readonly attempt: number; readonly delayMs: number; readonly reason: LightconeError }
  | { readonly name: "failed"; readonly reason: LightconeError }
  | { readonly name: "closed" };

export interface ClientEvents {
  state(state: ClientState): void;
  welcome(welcome: WelcomeMessage): void;
  frame(frame: FrameMessage): void;
  receipt(receipt: ReceiptMessage): void;
  /** The server refused a request; the session continues. Errors that end the session arrive as a state instead. */
  refusal(refusal: ServerRefusal): void;
  /** The server will close the connection soon; the client then reconnects automatically. */
  goAway(secondsLeft: number, reason: string): void;
}

export interface ClientOptions {
  /** The server's stream, such as `ws://127.0.0.1:8000/v1/stream`. */
  readonly url: string;
  readonly world: string;
  readonly encodings?: readonly string[];
  readonly pacing?: HelloMessage["pacing"];
  readonly start?: StartFrom;
  /** See `setSpeed`; 1 by default. */
  readonly speed?: number | null;
  /** Whether the session begins paused; false by default. */
  readonly paused?: boolean;
  readonly receipts?: boolean;
  readonly token?: string;
  /** The `resume_ticket` of a session to resume; if the server no longer has it, a new session begins. */
  readonly ticket?: string | null;
  readonly events?: Partial<ClientEvents>;
  /** Opens a socket; `new WebSocket(url)` by default. */
  readonly openSocket?: (url: string) => WebSocket;
}
