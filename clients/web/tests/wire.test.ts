import { decode, encode } from "@msgpack/msgpack";
import { describe, expect, it } from "vitest";
import { ProtocolViolation } from "../src/errors";
import { decodeMessage, encodeMessage } from "../src/wire";

/** The bytes as a WebSocket delivers them: a buffer of exactly this message. */
const delivered = (value: unknown): ArrayBuffer => encode(value).slice().buffer;

describe("encodeMessage", () => {
  it("leaves undefined fields out, so that the server's defaults apply", () => {
    expect(decode(encodeMessage({ type: "act", seq: 1, buttons: ["up"], t_client: undefined as never }))).toEqual({
      type: "act",
      seq: 1,
      buttons: ["up"],
    });
  });

  it("sends pictures as binary, not as lists", () => {
    const start = { image: new Uint8Array([1, 2, 255]) };
    const back = decode(encodeMessage({ type: "control", command: "start", start })) as { start: { image: unknown } };
    expect(back.start.image).toEqual(new Uint8Array([1, 2, 255]));
  });
});

describe("decodeMessage", () => {
  it("reads a frame with its payload", () => {
    const frame = { type: "frame", index: 3, payload: new Uint8Array([9, 8]), applied_seq: null };
    expect(decodeMessage(delivered(frame))).toEqual(frame);
  });

  it("skips types of a newer server", () => {
    expect(decodeMessage(delivered({ type: "weather", sunny: true }))).toBeNull();
  });

  it.each([
    ["text", "hello"],
    ["broken bytes", new Uint8Array([0xc1]).buffer],
    ["a message cut short", delivered({ type: "bye" }).slice(0, 4)],
    ["no map", delivered([1, 2])],
    ["no type", delivered({ index: 1 })],
  ])("refuses %s", (_, data) => {
    expect(() => decodeMessage(data)).toThrow(ProtocolViolation);
  });
});
