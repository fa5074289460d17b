/**
 * A take: the start of a run and all its inputs, so that it can be played again. Encoded as text it fits into a link.
 *
 * Owns the text format: JSON of [version, world, start, seed, buttons, axes, inputs], deflated, in base64url; `inputs` are
 * [chunks, held buttons, axis movement], with buttons and axes by index. Knows no socket and no page.
 */

import { LightconeError } from "./errors";
import type { ActionLogMessage, LoggedInput, StartFrom, WorldInfo } from "./protocol";

const VERSION = 1;
/** More chunks than any server logs; longer takes are rejected as forged. */
const MAX_CHUNKS = 1_000_000;
const MAX_JSON_BYTES = 16 * 1024 * 1024;

export interface Take {
  readonly world: string;
  readonly start: { readonly index: number } | { readonly image: Uint8Array };
  readonly seed: number;
  readonly inputs: readonly LoggedInput[];
}

type Packed = [number, string, number | string, number, string[], string[], [number, number[], number[]][]];

/** The take of a run. `image`: the picture from which the run started, if any. */
export function takeOf(world: string, log: ActionLogMessage, image: Uint8Array | null): Take {
  if (log.start_index === null && image === null) {
    throw new LightconeError("this run started from a picture that this page does not have");
  }
  const start = log.start_index === null ? { image: image as Uint8Array } : { index: log.start_index };
  return { world, start, seed: log.seed, inputs: log.inputs };
}

/** The start from which a session plays the take. */
export function startOf(take: Take): StartFrom {
  return { ...take.start, seed: take.seed };
}

export function numChunks(take: Take): number {
  return take.inputs.reduce((sum, input) => sum + input.num_chunks, 0);
}

/** Yields the input of every chunk, in order. */
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
  return toBase64(await pipe(bytes, new CompressionStream("deflate-raw")));
}

/** @throws LightconeError if the text is not a take. */
export async function decodeTake(text: string): Promise<Take> {
  try {
    const bytes = await pipe(fromBase64(text), new DecompressionStream("deflate-raw"), MAX_JSON_BYTES);
    return validated(JSON.parse(new TextDecoder().decode(bytes)) as Packed);
  } catch (cause) {
    if (cause instanceof LightconeError) throw cause;
    throw new LightconeError("this take cannot be read; was the link copied completely?");
  }
}

function validated([version, world, start, seed, buttons, axes, inputs]: Packed): Take {
  if (version !== VERSION) throw new LightconeError(`this take has version ${String(version)}, this page reads ${VERSION}`);
  const nameAt = (names: readonly string[], index: number): string => {
    const name = names[index];
    if (typeof name !== "string") throw new TypeError(`no name with index ${index}`);
    return name;
  };
  const take: Take = {
    world: String(world),
    start: typeof start === "number" ? { index: start } : { image: fromBase64(start) },
    seed: Number(seed),
    inputs: inputs.map(([num_chunks, held, moved]) => ({
      num_chunks: Number(num_chunks),
      buttons: held.map((index) => nameAt(buttons, index)),
      axes: Object.fromEntries(moved.map((value, index) => [nameAt(axes, index), Number(value)])),
    })),
  };
  if (!(numChunks(take) <= MAX_CHUNKS)) throw new LightconeError("this take is longer than any server records");
  return take;
}

/** The buttons and axes of the take that the world does not have. */
export function unknownInputs(take: Take, world: WorldInfo): string[] {
  const known = new Set([...world.buttons, ...world.axes].map(({ name }) => name));
  const used = take.inputs.flatMap((input) => [...input.buttons, ...Object.keys(input.axes)]);
  return [...new Set(used)].filter((name) => !known.has(name));
}

/** @deprecated The old name of `unknownInputs`. */
export const strangers = unknownInputs;

async function pipe(bytes: Uint8Array, stream: GenericTransformStream, limit = Infinity): Promise<Uint8Array> {
  const source = new Blob([new Uint8Array(bytes)]).stream() as ReadableStream<Uint8Array>;
  const reader = (source.pipeThrough(stream) as ReadableStream<Uint8Array>).getReader();
  const parts: Uint8Array[] = [];
  let length = 0;
  for (let read = await reader.read(); !read.done; read = await reader.read()) {
    length += read.value.length;
    if (length > limit) throw new LightconeError("this take is longer than any server records");
    parts.push(read.value);
  }
  const joined = new Uint8Array(length);
  let offset = 0;
  for (const part of parts) {
    joined.set(part, offset);
    offset += part.length;
  }
  return joined;
}

export function toBase64(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
}

export function fromBase64(text: string): Uint8Array {
  const decoded = atob(text.replace(/-/g, "+").replace(/_/g, "/"));
  return Uint8Array.from(decoded, (letter) => letter.charCodeAt(0));
}
