/**
 * Records what is on the screen as a video file.
 *
 * Owns the `MediaRecorder` and the enlarged copy of the canvas that it records, since a world's pictures are too small
 * for a video player. Knows nothing of worlds; the caller calls `frame` after each presented frame.
 */

import { LightconeError } from "./errors";

const MIN_HEIGHT = 480;
const TYPES = ["video/webm;codecs=vp9", "video/webm;codecs=vp8", "video/webm", "video/mp4"];

export interface Clip {
  readonly video: Blob;
  readonly seconds: number;
}

export class ClipRecorder {
  private recorder: MediaRecorder | null = null;
  private stream: MediaStream | null = null;
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

  /** Starts recording a world of `fps`. @throws LightconeError if the browser cannot record. */
  start(fps: number): void {
    if (this.recorder) return;
    const mimeType = typeof MediaRecorder === "undefined" ? undefined : TYPES.find((type) => MediaRecorder.isTypeSupported(type));
    if (!mimeType) throw new LightconeError("this browser cannot record video");
    const factor = Math.max(1, Math.ceil(MIN_HEIGHT / this.canvas.height));
    this.large.width = this.canvas.width * factor;
    this.large.height = this.canvas.height * factor;
    this.stream = capture(this.large, fps);
    this.parts = [];
    this.recorder = new MediaRecorder(this.stream, { mimeType, videoBitsPerSecond: 8_000_000 });
    this.recorder.ondataavailable = ({ data }) => this.parts.push(data);
    this.startedAt = performance.now();
    this.recorder.start(1000);
    this.frame();
  }

  /** Records the frame that is now on the canvas. */
  frame(): void {
    if (!this.stream) return;
    const context = this.large.getContext("2d", { alpha: false });
    if (!context) return;
    context.imageSmoothingQuality = "high";
    context.drawImage(this.canvas, 0, 0, this.large.width, this.large.height);
    for (const track of this.stream.getVideoTracks()) if (supportsRequestFrame(track)) track.requestFrame();
  }

  /** Ends the recording and returns it; null if there was none. */
  async stop(): Promise<Clip | null> {
    const { recorder, seconds } = this;
    if (!recorder) return null;
    this.recorder = null;
    await new Promise<void>((resolve) => {
      recorder.onstop = () => resolve();
      recorder.stop();
    });
    stopTracks(this.stream);
    this.stream = null;
    return { video: new Blob(this.parts, { type: recorder.mimeType }), seconds };
  }
}

function supportsRequestFrame(track: MediaStreamTrack): track is CanvasCaptureMediaStreamTrack {
  return "requestFrame" in track;
}

/** Captures the canvas on each `requestFrame`, or `fps` times per second if the browser lacks `requestFrame`. */
function capture(canvas: HTMLCanvasElement, fps: number): MediaStream {
  const onRequest = canvas.captureStream(0);
  if (onRequest.getVideoTracks().every(supportsRequestFrame)) return onRequest;
  stopTracks(onRequest);
  return canvas.captureStream(fps);
}

function stopTracks(stream: MediaStream | null): void {
  for (const track of stream?.getTracks() ?? []) track.stop();
}
