/**
 * The received frames that can be rewound to.
 *
 * Owns which frames are kept: those at most `limit` before the newest, of the current run and of the runs it continues. A
 * run that rewound to frame n of the previous run keeps that run's frames up to n; a run that starts at 0 keeps none.
 * Pictures stay encoded, so that ten seconds take little memory. Knows no canvas and no socket.
 */

import type { FrameMessage } from "./protocol";

export class Timeline {
  private frames: FrameMessage[] = [];
  private run = -1;

  constructor(private readonly limit: number) {}

  /** The kept frames, oldest first. */
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
    // By frame number: frames that were never received count too.
    this.frames = this.frames.filter(({ run_frame }) => run_frame >= frame.run_frame - this.limit);
  }

  /** The frames that end a chunk; only these can be rewound to. */
  stops(chunkFrames: number): FrameMessage[] {
    return this.frames.filter(({ run_frame }) => run_frame % chunkFrames === 0);
  }
}
