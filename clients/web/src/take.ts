/**
 * A take: where a run began and every input since, so that it can be played again. As text, short enough for a link.
 *
 * Owns that form: JSON of [version, world, start, seed, buttons, axes, inputs], deflated, in base64url; `inputs` are
 * [chunks, held buttons, axis movement], buttons and axes by place. Knows no socket and no page.
 */

import { LightconeError } from "./errors";
import type { ActionLogMessage, LoggedInput, StartFrom, WorldInfo } from "./protocol";

const VERSION = 1;
/** More than any log a server keeps; a link that claims more is not believed. */
const MAX_CHUNKS = 1_000_000;
const MAX_JSON_BYTES = 16 * 1024 * 1024;

export interface Take {
  readonly world: string;
  readonly start: { readonly index: number } | { readonly image: Uint8Array };
  readonly seed: number;
  readonly inputs: readonly LoggedInput[];
}

type Packed = [number, string, number | string, number, string[], string[], [number, number[], number[]][]];

/** The take of a run. `image`: what it began with, where that was a picture. */
export function takeOf(world: string, log: ActionLogMessage, image: Uint8Array | null): Take {
  if (log.start_index === null && image === null) {
    throw new LightconeError("this run began with a picture that is not known here");
  }
  const start = log.start_index === null ? { image: image as Uint8Array } : { index: log.start_index };
  return { world, start, seed: log.seed, inputs: log.inputs };
}

/** Where a session starts to play the take. */
export function startOf(take: Take): StartFrom {
  return { ...take.start, seed: take.seed };
}

export function numChunks(take: Take): number {
  return take.inputs.reduce((sum, input) => sum + input.num_chunks, 0);
}

/** Every chunk's input, in order. */
export function* chunksOf(take: Take): Generator<LoggedInput> {
  for (const input of take.inputs) {
    for (let chunk = 0; chunk < input.num_chunks; chunk += 1) yield input;
  }
}

export async function encodeTake(take: Take): Promise<string> {
  const buttons = [...new Set(take.inputs.flatMap((input) => input.buttons))];
  const axes = [...new Set(take.inputs.flatMap((input) => Object.keys(input.axes)))];
  const inputs = take.inputs.map((input): Packed[6][number] => [
    input.num_chunks,
    input.buttons.map((name) => buttons.indexOf(name)),
    axes.map((name) => input.axes[name] ?? 0),
  ]);
  const start = "index" in take.start ? take.start.index : toBase64(take.start.image);
  const packed: Packed = [VERSION, take.world, start, take.seed, buttons, axes, inputs];
  const bytes = new TextEncoder().encode(JSON.stringify(packed));
  return toBase64(await through(bytes, new CompressionStream("deflate-raw")));
}

/** @throws LightconeError for text that is no take. */
export async function decodeTake(text: string): Promise<Take> {
  try {
    const bytes = await through(fromBase64(text), new DecompressionStream("deflate-raw"), MAX_JSON_BYTES);
    return checked(JSON.parse(new TextDecoder().decode(bytes)) as Packed);
  } catch (cause) {
    if (cause instanceof LightconeError) throw cause;
    throw new LightconeError("this link's take cannot be read; was it copied whole?");
  }
}

function checked([version, world, start, seed, buttons, axes, inputs]: Packed): Take {
  if (version !== VERSION) throw new LightconeError(`this take has version ${String(version)}, this page reads ${VERSION}`);
  const named = (names: readonly string[], index: number): string => {
    const name = names[index];
    if (typeof name !== "string") throw new TypeError("no such name");
    return name;
  };
  const take: Take = {
    world: String(world),
    start: typeof start === "number" ? { index: start } : { image: fromBase64(start) },
    seed: Number(seed),
    inputs: inputs.map(([num_chunks, held, moved]) => ({
      num_chunks: Number(num_chunks),
      buttons: held.map((index) => named(buttons, index)),
      axes: Object.fromEntries(moved.map((value, index) => [named(axes, index), Number(value)])),
    })),
  };
  if (!(numChunks(take) <= MAX_CHUNKS)) throw new LightconeError("this take is longer than any world keeps");
  return take;
}

/** Names in the take that the world does not have. */
export function strangers(take: Take, world: WorldInfo): string[] {
  const known = new Set([...world.buttons, ...world.axes].map(({ name }) => name));
  const used = take.inputs.flatMap((input) => [...input.buttons, ...Object.keys(input.axes)]);
  return [...new Set(used)].filter((name) => !known.has(name));
}

async function through(bytes: Uint8Array, stream: GenericTransformStream, limit = Infinity): Promise<Uint8Array> {
  const source = new Blob([new Uint8Array(bytes)]).stream() as ReadableStream<Uint8Array>;
  const reader = (source.pipeThrough(stream) as ReadableStream<Uint8Array>).getReader();
  const parts: Uint8Array[] = [];
  let length = 0;
  for (let read = await reader.read(); !read.done; read = await reader.read()) {
    length += read.value.length;
    if (length > limit) throw new LightconeError("this take is longer than any world keeps");
    parts.push(read.value);
  }
  const whole = new Uint8Array(length);
  let place = 0;
  for (const part of parts) {
    whole.set(part, place);
    place += part.length;
  }
  return whole;
}

export function toBase64(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
}

export function fromBase64(text: string): Uint8Array {
  const plain = atob(text.replace(/-/g, "+").replace(/_/g, "/"));
  return Uint8Array.from(plain, (letter) => letter.charCodeAt(0));
}
