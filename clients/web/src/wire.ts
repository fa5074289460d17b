/**
 * Encodes and decodes messages: one MessagePack map per binary WebSocket message.
 *
 * Owns the encoding. Knows neither sockets nor the meaning of messages; protocol.ts declares their types.
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

/** Encodes a message; undefined fields are left out. */
export function encodeMessage(message: ClientMessage): Uint8Array<ArrayBuffer> {
  return encode(message, { ignoreUndefined: true });
}

/**
 * Decodes a message; returns null for an unknown type, which a newer server may send.
 *
 * @throws ProtocolViolation if the bytes are not a message.
 */
export function decodeMessage(data: unknown): ServerMessage | null {
  if (!(data instanceof ArrayBuffer)) {
    throw new ProtocolViolation("the server sent a text message, but the protocol is binary; check the address");
  }
  let value: unknown;
  try {
    value = decode(data);
  } catch (cause) {
    if (!(cause instanceof Error)) throw cause;
    throw new ProtocolViolation(`the server sent ${data.byteLength} bytes that are not valid MessagePack: ${cause.message}`);
  }
  if (typeof value !== "object" || value === null || !("type" in value) || typeof value.type !== "string") {
    throw new ProtocolViolation("the server sent a message without a type");
  }
  return value.type in KNOWN ? (value as ServerMessage) : null;
}
