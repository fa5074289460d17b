/**
 * Draws frames onto a canvas and reports when each was presented.
 *
 * Owns decoding to `ImageBitmap`s, drawing in animation frames, and reporting a frame as presented in the animation frame
 * after the one that drew it, when it is on the screen. Knows no socket; the caller decides what a presented frame leads
 * to (acks, statistics). A hidden page gets no animation frames, so it presents and acknowledges nothing, and the server
 * pauses its world.
 */

import { LightconeError } from "./errors";
import { Playout } from "./playout";
import type { FrameMessage } from "./protocol";

export interface PresenterEvents {
  /** `frame` has been on the screen since about `at` (a `performance.now()` time). */
  presented(frame: FrameMessage, at: number): void;
  /** `frame` could not be decoded and will not be presented. */
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

/** Decodes the frame's payload. Rejects as `createImageBitmap` does if it is not a picture. */
export function decodeFrame(frame: FrameMessage): Promise<ImageBitmap> {
  // A payload is a view into the whole message; Blob's types need a copy in a separate buffer.
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
    if (!context) throw new LightconeError("this browser does not support 2D canvases, which Lightcone needs");
    this.context = context;
    this.playout = newPlayout(30);
  }

  /** Drops all frames, as for a new session; `fps` is the rate of its world. */
  reset(fps: number): void {
    this.drop();
    this.playout = newPlayout(fps);
    this.drawn = null;
  }

  /**
   * Shows a past frame at once, without reporting it as presented. Pictures still to be shown are dropped; frames pushed
   * later replace it.
   */
  async show(frame: FrameMessage): Promise<void> {
    this.drop();
    const epoch = this.epoch;
    this.shows += 1;
    const show = this.shows;
    const bitmap = await decodeFrame(frame);
    if (epoch === this.epoch && show === this.shows) this.paint(bitmap);
    bitmap.close();
  }

  /** The picture on the canvas. */
  pixels(): ImageData {
    return this.context.getImageData(0, 0, this.canvas.width, this.canvas.height);
  }

  /** Decodes a frame and shows it when it is due. */
  push(frame: FrameMessage): void {
    const epoch = this.epoch;
    decodeFrame(frame).then(
      (bitmap) => {
        if (epoch !== this.epoch) return bitmap.close();
        const { index, chunk, run, end_of_chunk } = frame;
        this.playout.push({ index, chunk, run, end_of_chunk, frame, bitmap }, performance.now());
        this.scheduleTick();
      },
      (cause: unknown) => {
        if (epoch !== this.epoch) return;
        const reason = cause instanceof Error ? cause.message : String(cause);
        this.events.undecodable(frame, new LightconeError(`frame ${frame.index} is not a readable picture: ${reason}`));
      },
    );
  }

  /** Drops the pictures that are being decoded or still to be shown. */
  private drop(): void {
    this.epoch += 1;
    this.playout.reset();
  }

  private scheduleTick(): void {
    if (this.ticking) return;
    this.ticking = true;
    requestAnimationFrame((now) => this.tick(now));
  }

  private tick(now: number): void {
    const presented = this.drawn;
    this.drawn = null;
    if (presented) this.events.presented(presented, now);
    // Due times come from performance.now(), which is later than the time stamp of this animation frame.
    const picture = this.playout.take(performance.now());
    if (picture) this.draw(picture);
    this.ticking = false;
    if (this.drawn || !this.playout.isEmpty) this.scheduleTick();
  }

  private draw({ frame, bitmap }: Picture): void {
    this.shows += 1; // cancels a past frame that is still being decoded
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
