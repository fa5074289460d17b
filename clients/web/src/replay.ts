/**
 * Plays a take: sends its inputs one by one, one per chunk, at the world's rate.
 *
 * Owns when the next input is sent. The session must be in lock-step and start from the take's start, so that every
 * input gives exactly one chunk even if the connection is lost.
 */

import type { LoggedInput } from "./protocol";
import { chunksOf, numChunks, type Take } from "./take";

/** How many inputs may be sent ahead of the chunk on the screen. */
const MAX_AHEAD = 3;

export class Replay {
  readonly total: number;
  private inputs: Generator<LoggedInput>;
  private sent = 0;
  private shown = 0;
  private timer: ReturnType<typeof setInterval> | undefined;

  /** `send` sends one input; `done` is called once, when the last frame of the take is on the screen. */
  constructor(
    private readonly take: Take,
    private readonly chunkMs: number,
    private readonly send: (input: LoggedInput) => void,
    private readonly done: () => void,
  ) {
    this.total = numChunks(take);
    this.inputs = chunksOf(take);
  }

  /** Number of chunks shown so far. */
  get place(): number {
    return this.shown;
  }

  /** Starts from the beginning, when the session has opened. */
  start(): void {
    this.stop();
    this.inputs = chunksOf(this.take);
    this.sent = this.shown = 0;
    this.timer = setInterval(() => this.tick(), this.chunkMs);
  }

  stop(): void {
    clearInterval(this.timer);
    this.timer = undefined;
  }

  /** Sends the next input, if any, without limiting how far it is ahead: for single steps of a paused world. */
  sendNext(): void {
    const next = this.inputs.next();
    if (next.done) return;
    this.sent += 1;
    this.send(next.value);
  }

  /** Reports that chunk number `chunk` of the run (1 is the first) is on the screen. */
  presented(chunk: number): void {
    this.shown = Math.max(this.shown, chunk);
    this.finishIfDone();
  }

  private tick(): void {
    if (this.finishIfDone() || this.sent - this.shown >= MAX_AHEAD) return;
    this.sendNext();
  }

  private finishIfDone(): boolean {
    if (this.timer === undefined || this.shown < this.total) return false;
    this.stop();
    this.done();
    return true;
  }
}
