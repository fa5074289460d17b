import { decode, encode } from "@msgpack/msgpack";
import { describe, expect, it } from "vitest";
import { ProtocolViolation } from "../src/errors";
import { decodeMessage, encodeMessage } from "../src/wire";

/** A message as a WebSocket delivers it: an ArrayBuffer with exactly its bytes. */
const delivered = (value: unknown): ArrayBuffer => encode(value).slice().buffer;

describe("encodeMessage", () => {
  it("omits undefined fields, so that the server's defaults apply", () => {
    expect(decode(encodeMessage({ type: "act", seq: 1, buttons: ["up"], t_client: undefined as never }))).toEqual({
      type: "act",
      seq: 1,
      buttons: ["up"],
    });
  });

  it("encodes pictures as binary, not as lists", () => {
    const start = { image: new Uint8Array([1, 2, 255]) };
    const decoded = decode(encodeMessage({ type: "control", command: "start", start })) as { start: { image: unknown } };
    expect(decoded.start.image).toEqual(new Uint8Array([1, 2, 255]));
  });
});

describe("decodeMessage", () => {
  it("reads a frame with its payload", () => {
    const frame = { type: "frame", index: 3, payload: new Uint8Array([9, 8]), applied_seq: null };
    expect(decodeMessage(delivered(frame))).toEqual(frame);
  });

  it("ignores the unknown types of a newer server", () => {
    expect(decodeMessage(delivered({ type: "weather", sunny: true }))).toBeNull();
  });

  it.each([
    ["text", "hello"],
    ["broken bytes", new Uint8Array([0xc1]).buffer],
    ["a truncated message", delivered({ type: "bye" }).slice(0, 4)],
    ["a value that is not a map", delivered([1, 2])],
    ["a map without a type", delivered({ index: 1 })],
  ])("rejects %s", (_, data) => {
    expect(() => decodeMessage(data)).toThrow(ProtocolViolation);
  });
});
