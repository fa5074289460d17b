/**
 * Frames onto a canvas, and the news of when each could be seen.
 *
 * Owns decoding to `ImageBitmap`s, drawing in animation frames and reporting a frame as presented in the animation frame
 * after the one that drew it: by then the browser has put it on the screen. Knows no socket; what "presented" is good
 * for (acks, figures) is the caller's business. While the page is hidden no animation frames come, so nothing is
 * presented, nothing acked, and the server stops by itself.
 */

import { LightconeError } from "./errors";
import { Playout } from "./playout";
import type { FrameMessage } from "./protocol";

export interface PresenterEvents {
  /** `frame` has been on the screen since about `at` (a `performance.now()` time). */
  presented(frame: FrameMessage, at: number): void;
  /** `frame` will never be on the screen: it could not be decoded. */
  undecodable(frame: FrameMessage, error: LightconeError): void;
}

interface Picture {
  readonly index: number;
  readonly chunk: number;
  readonly run: number;
  readonly end_of_chunk: boolean;
  readonly frame: FrameMessage;
  readonly bitmap: ImageBitmap;
}

/** The frame's payload as a bitmap ready to draw. Raises what `createImageBitmap` raises for a broken picture. */
export function decodeFrame(frame: FrameMessage): Promise<ImageBitmap> {
  // A payload is a view into the whole message; the copy makes it a buffer of its own, which Blob's types ask for.
  return createImageBitmap(new Blob([new Uint8Array(frame.payload)], { type: `image/${frame.encoding}` }));
}

export class Presenter {
  private readonly context: CanvasRenderingContext2D;
  private playout: Playout<Picture>;
  private drawn: FrameMessage | null = null;
  private ticking = false;
  private epoch = 0;
  private shows = 0;

  constructor(
    private readonly canvas: HTMLCanvasElement,
    private readonly events: PresenterEvents,
  ) {
    const context = canvas.getContext("2d", { alpha: false, willReadFrequently: true });
    if (!context) throw new LightconeError("this browser gives no 2d canvas; Lightcone draws on one");
    this.context = context;
    this.playout = newPlayout(30);
  }

  /** Forgets all frames, as a new session numbers them afresh; `fps` is the rate of the world to come. */
  reset(fps: number): void {
    this.drop();
    this.playout = newPlayout(fps);
    this.drawn = null;
  }

  /**
   * Shows a frame of the past at once, without saying that it was presented. What waits to be shown is dropped; frames
   * pushed from now on go over it.
   */
  async show(frame: FrameMessage): Promise<void> {
    this.drop();
    const epoch = this.epoch;
    this.shows += 1;
    const turn = this.shows;
    const bitmap = await decodeFrame(frame);
    if (epoch === this.epoch && turn === this.shows) this.paint(bitmap);
    bitmap.close();
  }

  /** The picture on the canvas. */
  pixels(): ImageData {
    return this.context.getImageData(0, 0, this.canvas.width, this.canvas.height);
  }

  /** Decodes the frame and shows it when it is due. */
  push(frame: FrameMessage): void {
    const epoch = this.epoch;
    decodeFrame(frame).then(
      (bitmap) => {
        if (epoch !== this.epoch) return bitmap.close();
        const { index, chunk, run, end_of_chunk } = frame;
        this.playout.push({ index, chunk, run, end_of_chunk, frame, bitmap }, performance.now());
        this.wake();
      },
      (cause: unknown) => {
        if (epoch !== this.epoch) return;
        const why = cause instanceof Error ? cause.message : String(cause);
        this.events.undecodable(frame, new LightconeError(`frame ${frame.index} is not a readable picture: ${why}`));
      },
    );
  }

  /** Forgets what is being decoded or waits to be shown. */
  private drop(): void {
    this.epoch += 1;
    this.playout.reset();
  }

  private wake(): void {
    if (this.ticking) return;
    this.ticking = true;
    requestAnimationFrame((now) => this.tick(now));
  }

  private tick(now: number): void {
    const seen = this.drawn;
    this.drawn = null;
    if (seen) this.events.presented(seen, now);
    // Due times come from performance.now(), which is later than this animation frame's own time stamp.
    const picture = this.playout.take(performance.now());
    if (picture) this.draw(picture);
    this.ticking = false;
    if (this.drawn || !this.playout.isEmpty) this.wake();
  }

  private draw({ frame, bitmap }: Picture): void {
    this.shows += 1; // a frame of the past that is still being decoded comes too late now
    this.paint(bitmap);
    bitmap.close();
    this.drawn = frame;
  }

  private paint(bitmap: ImageBitmap): void {
    const { canvas } = this;
    if (canvas.width !== bitmap.width || canvas.height !== bitmap.height) {
      canvas.width = bitmap.width;
      canvas.height = bitmap.height;
    }
    this.context.drawImage(bitmap, 0, 0);
  }
}

function newPlayout(fps: number): Playout<Picture> {
  return new Playout<Picture>(1000 / fps, ({ bitmap }) => bitmap.close());
}
