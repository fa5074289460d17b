/**
 * Pictures to start a world from: a file, one dropped on the page, or a still from the camera.
 *
 * Owns the file input, drag and drop, and the camera dialog; shrinks pictures before they are sent. The caller decides
 * what to do with them.
 */

import { LightconeError } from "../errors";
import { element } from "./dom";

/** Pixels; more than the worlds show. */
const LONGEST_SIDE = 512;
const JPEG_QUALITY = 0.95;

/** Shrinks a picture and encodes it as JPEG. @throws LightconeError if the file is not a picture. */
export async function shrink(source: ImageBitmapSource): Promise<Uint8Array> {
  const bitmap = await createImageBitmap(source).catch(() => {
    throw new LightconeError("this file is not a picture that the browser can read; choose a PNG, JPEG or WebP");
  });
  const scale = Math.min(1, LONGEST_SIDE / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  canvas.getContext("2d", { alpha: false })?.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  const blob = await new Promise<Blob | null>((resolve) => canvas.toBlob(resolve, "image/jpeg", JPEG_QUALITY));
  if (!blob) throw new LightconeError("the browser could not encode the picture");
  return new Uint8Array(await blob.arrayBuffer());
}

export class Pictures {
  private readonly file = element("picture-file", HTMLInputElement);
  private readonly dialog = element("camera-dialog", HTMLDialogElement);
  private readonly video = element("camera-video", HTMLVideoElement);
  private camera: MediaStream | null = null;
  private opening = false;

  constructor(
    private readonly use: (picture: Uint8Array) => void,
    private readonly failed: (error: LightconeError) => void,
  ) {
    this.file.addEventListener("change", () => {
      const chosen = this.file.files?.[0];
      this.file.value = "";
      if (chosen) this.take(chosen);
    });
    element("camera-take", HTMLButtonElement).addEventListener("click", () => {
      this.take(this.video);
      this.dialog.close();
    });
    element("camera-close", HTMLButtonElement).addEventListener("click", () => this.dialog.close());
    this.dialog.addEventListener("close", () => this.turnOff());
    window.addEventListener("dragover", (event) => event.preventDefault());
    window.addEventListener("drop", (event) => {
      event.preventDefault();
      const dropped = event.dataTransfer?.files[0];
      if (dropped?.type.startsWith("image/")) this.take(dropped);
    });
  }

  /** Opens the file chooser. */
  choose(): void {
    this.file.click();
  }

  /** Opens the camera dialog. */
  async openCamera(): Promise<void> {
    if (this.opening || this.camera) return;
    this.opening = true;
    try {
      if (!navigator.mediaDevices) throw new LightconeError("the camera needs a secure page: use https, or open the page on the server's own machine");
      this.camera = await navigator.mediaDevices.getUserMedia({ video: true });
    } catch (cause) {
      const message = cause instanceof LightconeError ? cause.message : "the camera is not available; allow this page to use it in the browser's settings";
      return this.failed(new LightconeError(message));
    } finally {
      this.opening = false;
    }
    this.video.srcObject = this.camera;
    this.dialog.showModal();
  }

  private take(source: Blob | HTMLVideoElement): void {
    shrink(source).then(this.use, (error: unknown) => {
      this.failed(error instanceof LightconeError ? error : new LightconeError(String(error)));
    });
  }

  private turnOff(): void {
    for (const track of this.camera?.getTracks() ?? []) track.stop();
    this.camera = null;
    this.video.srcObject = null;
  }
}
