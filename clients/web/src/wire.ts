/**
 * Messages as bytes and back: one MessagePack map per binary WebSocket message.
 *
 * Owns the encoding. Knows nothing of sockets or of what the messages mean; their types come from protocol.ts.
 */

import { decode, encode } from "@msgpack/msgpack";
import { ProtocolViolation } from "./errors";
import type { ClientMessage, ServerMessage } from "./protocol";

const KNOWN: Readonly<Record<ServerMessage["type"], true>> = {
  welcome: true,
  frame: true,
  receipt: true,
  forked: true,
  saved: true,
  action_log: true,
  queued: true,
  go_away: true,
  error: true,
};

/** The message as the bytes of one WebSocket message; fields that are undefined are left out. */
export function encodeMessage(message: ClientMessage): Uint8Array<ArrayBuffer> {
  return encode(message, { ignoreUndefined: true });
}

/**
 * What the server sent, or null for a type this client does not know (a newer server may send such).
 *
 * @throws ProtocolViolation where the bytes are not a message at all.
 */
export function decodeMessage(data: unknown): ServerMessage | null {
  if (!(data instanceof ArrayBuffer)) {
    throw new ProtocolViolation("the server sent a text message; this protocol is binary (is the address right?)");
  }
  let value: unknown;
  try {
    value = decode(data);
  } catch (cause) {
    if (!(cause instanceof Error)) throw cause;
    throw new ProtocolViolation(`the server sent ${data.byteLength} bytes that are not MessagePack: ${cause.message}`);
  }
  if (typeof value !== "object" || value === null || !("type" in value) || typeof value.type !== "string") {
    throw new ProtocolViolation("the server sent a message without a type");
  }
  return value.type in KNOWN ? (value as ServerMessage) : null;
}
