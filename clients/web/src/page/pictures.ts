/**
 * Pictures to start a world from: a file, one dropped on the page, or a still from the camera.
 *
 * Owns the file input, the drop and the camera's dialogue; makes pictures small before they are sent. What is done with
 * them is the caller's business.
 */

import { LightconeError } from "../errors";
import { element } from "./dom";

/** Pixels: no world shows more, and no server is sent more than it needs. */
const LONGEST_SIDE = 512;
const JPEG_QUALITY = 0.95;

/** The picture no larger than a server wants it, as JPEG. @throws LightconeError for a file that is no picture. */
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
  if (!blob) throw new LightconeError("the browser could not make a picture of it");
  return new Uint8Array(await blob.arrayBuffer());
}

export class Pictures {
  private readonly file = element("picture-file", HTMLInputElement);
  private readonly dialog = element("camera-dialog", HTMLDialogElement);
  private readonly video = element("camera-video", HTMLVideoElement);
  private camera: MediaStream | null = null;
  private asking = false;

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

  /** Asks for a file. */
  choose(): void {
    this.file.click();
  }

  /** Shows what the camera sees, to take a still from. */
  async openCamera(): Promise<void> {
    if (this.asking || this.camera) return;
    this.asking = true;
    try {
      if (!navigator.mediaDevices) throw new LightconeError("the camera needs a secure page: https, or this machine itself");
      this.camera = await navigator.mediaDevices.getUserMedia({ video: true });
    } catch (cause) {
      const why = cause instanceof LightconeError ? cause.message : "the camera cannot be used; the browser or its owner says no";
      return this.failed(new LightconeError(why));
    } finally {
      this.asking = false;
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
