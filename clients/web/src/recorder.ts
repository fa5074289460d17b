/**
 * A clip of what is on the screen, as a video file.
 *
 * Owns the enlarged copy of the canvas that is recorded (a world's own pictures are too small to watch elsewhere) and the
 * `MediaRecorder`. Knows nothing of worlds; whoever presents frames calls `frame` after each.
 */

import { LightconeError } from "./errors";

const LEAST_HEIGHT = 480;
const TYPES = ["video/webm;codecs=vp9", "video/webm;codecs=vp8", "video/webm", "video/mp4"];

export interface Clip {
  readonly video: Blob;
  readonly seconds: number;
}

export class ClipRecorder {
  private recorder: MediaRecorder | null = null;
  private track: CanvasCaptureMediaStreamTrack | null = null;
  private parts: Blob[] = [];
  private startedAt = 0;
  private readonly large = document.createElement("canvas");

  constructor(private readonly canvas: HTMLCanvasElement) {}

  get recording(): boolean {
    return this.recorder !== null;
  }

  get seconds(): number {
    return this.recording ? (performance.now() - this.startedAt) / 1000 : 0;
  }

  /** @throws LightconeError where the browser cannot record. */
  start(): void {
    if (this.recorder) return;
    const mimeType = typeof MediaRecorder === "undefined" ? undefined : TYPES.find((type) => MediaRecorder.isTypeSupported(type));
    if (!mimeType) throw new LightconeError("this browser cannot record video");
    const factor = Math.max(1, Math.ceil(LEAST_HEIGHT / this.canvas.height));
    this.large.width = this.canvas.width * factor;
    this.large.height = this.canvas.height * factor;
    const stream = this.large.captureStream(0);
    this.track = stream.getVideoTracks()[0] as CanvasCaptureMediaStreamTrack;
    this.parts = [];
    this.recorder = new MediaRecorder(stream, { mimeType, videoBitsPerSecond: 8_000_000 });
    this.recorder.ondataavailable = ({ data }) => this.parts.push(data);
    this.startedAt = performance.now();
    this.recorder.start(1000);
    this.frame();
  }

  /** Another frame is on the canvas. */
  frame(): void {
    if (!this.track) return;
    const context = this.large.getContext("2d", { alpha: false });
    if (!context) return;
    context.imageSmoothingQuality = "high";
    context.drawImage(this.canvas, 0, 0, this.large.width, this.large.height);
    this.track.requestFrame();
  }

  /** Ends the recording; null if there was none. */
  async stop(): Promise<Clip | null> {
    const { recorder, seconds } = this;
    if (!recorder) return null;
    this.recorder = null;
    await new Promise<void>((resolve) => {
      recorder.onstop = () => resolve();
      recorder.stop();
    });
    this.track?.stop();
    this.track = null;
    return { video: new Blob(this.parts, { type: recorder.mimeType }), seconds };
  }
}
