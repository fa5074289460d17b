/**
 * Plays a take: its inputs, one by one, each in a chunk of its own, at the world's rate.
 *
 * Owns when the next input is sent. The session must have been opened in lock-step from the take's start, so that every
 * input makes exactly one chunk, whatever the connection does.
 */

import type { LoggedInput } from "./protocol";
import { chunksOf, numChunks, type Take } from "./take";

/** Inputs sent ahead of what is on the screen. */
const AHEAD = 3;

export class Replay {
  readonly total: number;
  private inputs: Generator<LoggedInput>;
  private sent = 0;
  private shown = 0;
  private timer: ReturnType<typeof setInterval> | undefined;

  /** `send` sends one input; `done` is called once, when the last of its frames is on the screen. */
  constructor(
    private readonly take: Take,
    private readonly chunkMs: number,
    private readonly send: (input: LoggedInput) => void,
    private readonly done: () => void,
  ) {
    this.total = numChunks(take);
    this.inputs = chunksOf(take);
  }

  /** Chunks on the screen so far. */
  get place(): number {
    return this.shown;
  }

  /** From the beginning: the session has just opened. */
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

  /** Sends the next input, if there is one, however many are ahead: for a step of a world that stands still. */
  sendNext(): void {
    const next = this.inputs.next();
    if (next.done) return;
    this.sent += 1;
    this.send(next.value);
  }

  /** The run's chunk number `chunk` (1 is the first) is on the screen. */
  presented(chunk: number): void {
    this.shown = Math.max(this.shown, chunk);
    this.finishIfDone();
  }

  private tick(): void {
    if (this.finishIfDone() || this.sent - this.shown >= AHEAD) return;
    this.sendNext();
  }

  private finishIfDone(): boolean {
    if (this.timer === undefined || this.shown < this.total) return false;
    this.stop();
    this.done();
    return true;
  }
}
