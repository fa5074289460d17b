/**
 * The frames one can go back to, as they were received.
 *
 * Owns which are kept: the newest `limit` of the run and of what led to it. A run that goes back to frame n of the run
 * before keeps its frames up to n; one that begins at 0 keeps none. Pictures stay encoded, so that ten seconds cost
 * little memory. Knows no canvas and no socket.
 */

import type { FrameMessage } from "./protocol";

export class Timeline {
  private frames: FrameMessage[] = [];
  private run = -1;

  constructor(
    private readonly limit: number,
    earlier: readonly FrameMessage[] = [],
  ) {
    this.frames = [...earlier];
  }

  /** The frames kept, oldest first. */
  get kept(): readonly FrameMessage[] {
    return this.frames;
  }

  get newest(): FrameMessage | null {
    return this.frames[this.frames.length - 1] ?? null;
  }

  push(frame: FrameMessage): void {
    if (frame.run !== this.run) {
      this.run = frame.run;
      this.frames = this.frames.filter(({ run_frame }) => run_frame < frame.run_frame);
    }
    this.frames.push(frame);
    if (this.frames.length > this.limit) this.frames.splice(0, this.frames.length - this.limit);
  }

  /** Forgets everything, as for a new session. */
  clear(): void {
    this.frames = [];
    this.run = -1;
  }

  /** Frames up to `runFrame`, for a branch that begins there. */
  upTo(runFrame: number): FrameMessage[] {
    return this.frames.filter(({ run_frame }) => run_frame <= runFrame);
  }

  /** Frames that end a chunk: those a world can go back to. */
  stops(chunkFrames: number): FrameMessage[] {
    return this.frames.filter(({ run_frame }) => run_frame % chunkFrames === 0);
  }
}
