/**
 * Saving and sharing: clips as video files, takes as files and links.
 *
 * Owns the actions of the buttons and the file names; src/take.ts owns the takes. A link holds the whole take after
 * `#take=`, which the browser does not send to the server.
 */

import { LightconeError } from "../errors";
import type { Player } from "../player";
import { ClipRecorder } from "../recorder";
import { decodeTake, encodeTake, takeOf, type Take } from "../take";
import { element } from "./dom";

const MARK = "#take=";
/** Some programs truncate longer addresses. */
const MAX_LINK_LENGTH = 30_000;
const MAX_FILE_BYTES = 4 * 1024 * 1024;

/** Decodes the take in an address, if there is one. @throws LightconeError if it cannot be read. */
export async function takeInAddress(hash: string): Promise<Take | null> {
  return hash.startsWith(MARK) ? decodeTake(hash.slice(MARK.length)) : null;
}

export class Takes {
  readonly record = element("record", HTMLButtonElement);
  private readonly file = element("take-file", HTMLInputElement);
  private recorder: ClipRecorder | null = null;

  constructor(
    private readonly player: () => Player | null,
    private readonly open: (take: Take) => void,
    private readonly say: (text: string) => void,
  ) {
    this.file.addEventListener("change", () => {
      const chosen = this.file.files?.[0];
      this.file.value = "";
      if (chosen) this.attempt(this.readFile(chosen));
    });
    setInterval(() => this.showRecording(), 500);
  }

  /** Reports that another frame is on the screen. */
  frame(): void {
    this.recorder?.frame();
  }

  toggleRecording(): void {
    if (this.recorder) this.attempt(this.finishRecording(this.recorder));
    else this.attempt(this.startRecording());
  }

  copyLink(): void {
    this.attempt(this.makeLink());
  }

  save(): void {
    this.attempt(
      this.currentTake().then(async (take) => {
        download(new Blob([await encodeTake(take)], { type: "text/plain" }), `${take.world}.take`);
      }),
    );
  }

  choose(): void {
    this.file.click();
  }

  private async currentTake(): Promise<Take> {
    const player = this.player();
    if (!player) throw new LightconeError("there is no world to save a take of");
    const log = await player.client.actionLog();
    if (!log.complete) this.say("The run is too long to save completely; the take is its beginning.");
    return takeOf(player.world.name, log, player.image);
  }

  private async makeLink(): Promise<void> {
    const take = await this.currentTake();
    const address = new URL(location.href);
    address.searchParams.set("world", take.world);
    address.hash = `${MARK}${await encodeTake(take)}`;
    if (address.href.length > MAX_LINK_LENGTH) {
      throw new LightconeError("this take is too long for a link; save it as a file instead");
    }
    history.replaceState(null, "", address);
    const copied = await navigator.clipboard?.writeText(address.href).then(
      () => true,
      () => false,
    );
    this.say(copied ? "Link copied. It plays this take and lets the viewer continue from its end." : "The link is in the address bar; copy it from there.");
  }

  private async readFile(file: File): Promise<void> {
    if (file.size > MAX_FILE_BYTES) throw new LightconeError(`this file has ${file.size} bytes, but a take has at most ${MAX_FILE_BYTES}`);
    this.open(await decodeTake((await file.text()).trim()));
  }

  private async startRecording(): Promise<void> {
    const player = this.player();
    if (!player) return;
    const recorder = new ClipRecorder(player.canvas);
    recorder.start(player.world.fps);
    this.recorder = recorder;
    this.showRecording();
  }

  private async finishRecording(recorder: ClipRecorder): Promise<void> {
    this.recorder = null;
    this.showRecording();
    const clip = await recorder.stop();
    const name = this.player()?.world.name ?? "world";
    if (clip) download(clip.video, `${name}.${clip.video.type.includes("mp4") ? "mp4" : "webm"}`);
  }

  private showRecording(): void {
    const on = this.recorder !== null;
    const words = on ? `Stop (${Math.floor(this.recorder?.seconds ?? 0)} s)` : "Record clip";
    if (this.record.textContent !== words) this.record.textContent = words;
    // Without the seconds, which a screen reader would announce one by one.
    this.record.setAttribute("aria-label", on ? "Stop recording" : "Record clip");
    this.record.setAttribute("aria-pressed", String(on));
  }

  private attempt(work: Promise<void>): void {
    work.catch((error: unknown) => {
      if (!(error instanceof LightconeError)) throw error;
      this.say(error.message);
    });
  }
}

function download(content: Blob, name: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
