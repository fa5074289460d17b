/**
 * The frames one can go back to, as they were received.
 *
 * Owns which are kept: those at most `limit` before the newest, of the run and of what led to it. A run that goes back
 * to frame n of the run before keeps its frames up to n; one that begins at 0 keeps none. Pictures stay encoded, so that
 * ten seconds cost little memory. Knows no canvas and no socket.
 */

import type { FrameMessage } from "./protocol";

export class Timeline {
  private frames: FrameMessage[] = [];
  private run = -1;

  constructor(private readonly limit: number) {}

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
    // By their numbers: frames that were never received count as well.
    this.frames = this.frames.filter(({ run_frame }) => run_frame >= frame.run_frame - this.limit);
  }

  /** Frames that end a chunk: those a world can go back to. */
  stops(chunkFrames: number): FrameMessage[] {
    return this.frames.filter(({ run_frame }) => run_frame % chunkFrames === 0);
  }
}
