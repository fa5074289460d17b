import { decode, encode } from "@msgpack/msgpack";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { LightconeClient } from "../src/client";
import type { ClientState } from "../src/client-types";
import { ConnectionLost, ProtocolViolation, ServerRefusal } from "../src/errors";
import { PROTOCOL_VERSION } from "../src/protocol";
import { backoffMs } from "../src/reconnect";

/** A socket whose server side is controlled by the test. */
class TestSocket {
  binaryType = "";
  readyState = 0;
  onopen: (() => void) | null = null;
  onmessage: ((event: { data: unknown }) => void) | null = null;
  onclose: ((event: { code: number; reason: string }) => void) | null = null;
  readonly sent: Record<string, unknown>[] = [];

  constructor(readonly url: string) {}

  send(data: Uint8Array): void {
    this.sent.push(decode(data) as Record<string, unknown>);
  }

  close(): void {
    this.readyState = 3;
  }

  opens(): void {
    this.readyState = 1;
    this.onopen?.();
  }

  delivers(message: unknown): void {
    this.onmessage?.({ data: encode(message).slice().buffer });
  }

  closes(code: number, reason = ""): void {
    this.readyState = 3;
    this.onclose?.({ code, reason });
  }
}

const welcome = { type: "welcome", version: 1, session: "s", world: { name: "pong", fps: 30 } };

function setUp(options: object = {}) {
  const sockets: TestSocket[] = [];
  const states: ClientState[] = [];
  const refusals: ServerRefusal[] = [];
  const client = new LightconeClient({
    url: "ws://127.0.0.1:1/v1/stream",
    world: "pong",
    events: { state: (state) => states.push(state), refusal: (refusal) => refusals.push(refusal) },
    openSocket: (url) => {
      const socket = new TestSocket(url);
      sockets.push(socket);
      return socket as unknown as WebSocket;
    },
    ...options,
  });
  const names = () => states.map((state) => state.name);
  const latest = () => sockets[sockets.length - 1] as TestSocket;
  const join = () => {
    client.connect();
    latest().opens();
    latest().delivers(welcome);
  };
  return { client, sockets, latest, join, names, refusals };
}

beforeEach(() => {
  vi.useFakeTimers();
});

afterEach(() => {
  vi.useRealTimers();
});

describe("a session", () => {
  it("sends hello first and plays once welcomed", () => {
    const { client, latest, names } = setUp();
    client.connect();
    expect(client.act(["up"])).toBeNull();
    latest().opens();
    expect(latest().sent).toEqual([{ type: "hello", version: PROTOCOL_VERSION, world: "pong" }]);
    latest().delivers({ type: "queued", position: 2, eta_s: 9 });
    latest().delivers(welcome);
    expect(names()).toEqual(["connecting", "queued", "playing"]);
  });

  it("gives acts rising sequence numbers and time stamps", () => {
    const { client, latest, join } = setUp();
    join();
    expect(client.act(["up"], {}, 12.5)).toBe(1);
    expect(client.act([], {}, 13.5)).toBe(2);
    expect(latest().sent.slice(1)).toEqual([
      { type: "act", seq: 1, buttons: ["up"], axes: {}, t_client: 12.5 },
      { type: "act", seq: 2, buttons: [], axes: {}, t_client: 13.5 },
    ]);
    expect(client.sentSeq).toBe(2);
  });

  it("pauses, steps, plays and restarts", () => {
    const { client, latest, join, names } = setUp();
    join();
    client.pause();
    client.step();
    client.play();
    client.start({ index: 3 });
    client.ack(7);
    expect(latest().sent.slice(1)).toEqual([
      { type: "control", seq: 1, command: "pause" },
      { type: "control", seq: 2, command: "step", num_chunks: 1 },
      { type: "control", seq: 3, command: "play" },
      { type: "control", seq: 4, command: "start", start: { index: 3 } },
      { type: "ack", frame: 7 },
    ]);
    expect(names().slice(-3)).toEqual(["paused", "paused", "playing"]);
  });

  it("waits in the queue when it comes back from a pause and others have the time", () => {
    const { client, latest, join, names } = setUp();
    join();
    client.pause();
    client.play();
    latest().delivers({ type: "queued", position: 2, eta_s: null });
    expect(client.state).toEqual({ name: "queued", position: 2, etaSeconds: null, returning: true });
    latest().delivers({ type: "receipt", about: "control", seq: 1, status: "applied", frame: 4 });
    expect(client.state.name).toBe("queued");
    latest().delivers({ type: "receipt", about: "control", seq: 2, status: "applied", frame: 5 });
    expect(client.state.name).toBe("playing");
    client.pause();
    latest().delivers({ type: "queued", position: 1, eta_s: null });
    expect(names().slice(-2)).toEqual(["playing", "paused"]);
  });

  it("can begin paused, and leaves its session to whoever has the ticket", () => {
    const { client, latest, join } = setUp({ paused: true, ticket: "t" });
    join();
    expect(latest().sent[0]).toMatchObject({ resume: { ticket: "t", last_frame: null } });
    expect(latest().sent[1]).toMatchObject({ command: "pause" });
    expect([client.state.name, client.isPaused]).toEqual(["paused", true]);
    const socket = latest();
    socket.delivers({ ...welcome, resume_ticket: "t2" });
    client.leave();
    expect(socket.sent.at(-1)).toEqual({ type: "bye", keep: true });
    expect([client.state.name, client.resumeTicket]).toEqual(["closed", "t2"]);
  });

  it("reports a refusal that does not end the session", () => {
    const { client, latest, join, refusals } = setUp();
    join();
    latest().delivers({ type: "error", code: "unsupported", message: "no rewind here", fatal: false });
    expect(refusals.map(({ code, message }) => [code, message])).toEqual([["unsupported", "no rewind here"]]);
    expect(client.state.name).toBe("playing");
  });

  it("resolves a request only with its own reply", async () => {
    const { client, latest, join } = setUp();
    join();
    const forked = client.fork();
    const back = client.rewind(12);
    const refused = client.rewind(3);
    latest().delivers({ type: "receipt", about: "control", seq: 1, status: "applied", frame: 9 });
    latest().delivers({ type: "receipt", about: "act", seq: 2, status: "received", frame: null });
    latest().delivers({ type: "forked", seq: 1, ticket: "t", run_frame: 8, expires_s: 120 });
    latest().delivers({ type: "receipt", about: "control", seq: 2, status: "applied", frame: 9 });
    latest().delivers({ type: "error", code: "too_many_pending", message: "an act's", fatal: false, about: "act", seq: 3 });
    latest().delivers({ type: "error", code: "unknown_frame", message: "too old", fatal: false, seq: 3 });
    await expect(forked).resolves.toMatchObject({ ticket: "t" });
    await expect(back).resolves.toBeUndefined();
    await expect(refused).rejects.toMatchObject({ code: "unknown_frame" });
  });

  it("rejects pending requests when the session is lost", async () => {
    const { client, latest, join } = setUp();
    join();
    const log = client.actionLog();
    latest().closes(1006);
    await expect(log).rejects.toBeInstanceOf(ConnectionLost);
    await expect(client.fork()).rejects.toBeInstanceOf(ConnectionLost);
  });

  it("sends bye when closed and does not reconnect", () => {
    const { client, latest, join, sockets } = setUp();
    join();
    const socket = latest();
    client.close();
    expect(socket.sent.at(-1)).toEqual({ type: "bye" });
    socket.closes(1000);
    vi.advanceTimersByTime(60_000);
    expect(client.state.name).toBe("closed");
    expect(sockets).toHaveLength(1);
  });
});

describe("a lost connection", () => {
  it("is reopened, with growing delays until a frame has arrived", () => {
    const { client, latest, join, sockets } = setUp();
    join();
    latest().closes(1006);
    expect(client.state).toMatchObject({ name: "reconnecting", attempt: 1 });
    expect((client.state as { reason: Error }).reason).toBeInstanceOf(ConnectionLost);
    vi.advanceTimersByTime(400);
    expect(sockets).toHaveLength(2);
    latest().closes(1006);
    expect(client.state).toMatchObject({ name: "reconnecting", attempt: 2 });
    vi.advanceTimersByTime(1000);
    latest().opens();
    latest().delivers(welcome);
    latest().delivers({ type: "frame", index: 0 });
    latest().closes(1012);
    expect(client.state).toMatchObject({ name: "reconnecting", attempt: 1 });
  });

  const resumable = { ...welcome, resume_ticket: "s.secret", generation: 0, last_seq: null };
  const resumed = { ...resumable, generation: 1, last_seq: 1 };

  it("resumes the session and sends lost acts again", () => {
    const { client, latest, join } = setUp();
    join();
    latest().delivers(resumable);
    client.act(["up"], {}, 1);
    client.act([], {}, 2);
    latest().delivers({ type: "frame", index: 41 });
    latest().closes(1006);
    vi.advanceTimersByTime(400);
    latest().opens();
    expect(latest().sent[0]).toMatchObject({ type: "hello", resume: { ticket: "s.secret", last_frame: 41 } });
    latest().delivers(resumed);
    expect(latest().sent[1]).toEqual({ type: "act", seq: 2, buttons: [], axes: {}, t_client: 2 });
    expect(client.act(["up"], {}, 3)).toBe(3);
    expect(client.state.name).toBe("playing");
  });

  it("begins a new session if the old one cannot be resumed", () => {
    const { latest, join } = setUp();
    join();
    latest().delivers(resumable);
    latest().closes(1006);
    vi.advanceTimersByTime(400);
    latest().opens();
    latest().delivers({ type: "error", code: "unknown_ticket", message: "gone", fatal: true });
    latest().closes(1013);
    vi.advanceTimersByTime(1000);
    latest().opens();
    expect(latest().sent[0]).not.toHaveProperty("resume");
  });

  it.each(["idle", "taken_over"])("is resumed only when the player reconnects, after %s", (code) => {
    const { client, latest, join, sockets } = setUp();
    join();
    latest().delivers(resumable);
    latest().delivers({ type: "error", code, message: "why", fatal: true });
    latest().closes(1000);
    expect(client.state).toMatchObject({ name: "failed", reason: { code } });
    vi.advanceTimersByTime(60_000);
    expect(sockets).toHaveLength(1);
    client.connect();
    latest().opens();
    expect(latest().sent[0]).toMatchObject({ resume: { ticket: "s.secret", last_frame: null } });
  });

  it("resumes the session of a given ticket", () => {
    const { client, latest } = setUp({ ticket: "s.secret" });
    client.connect();
    latest().opens();
    expect(latest().sent[0]).toMatchObject({ resume: { ticket: "s.secret", last_frame: null } });
    latest().delivers({ ...resumed, last_seq: 70 });
    expect(latest().sent[1]).toMatchObject({ command: "play" });
    expect(client.act([])).toBe(71);
    client.close();
    client.connect();
    latest().opens();
    expect(latest().sent[0]).not.toHaveProperty("resume");
  });

  it("keeps the pause and the start", () => {
    const { client, latest, join } = setUp();
    join();
    client.pause();
    client.start({ index: 2 });
    latest().closes(1006);
    vi.advanceTimersByTime(400);
    latest().opens();
    expect(latest().sent[0]).toMatchObject({ type: "hello", start: { index: 2 } });
    latest().delivers(welcome);
    expect(latest().sent[1]).toMatchObject({ type: "control", command: "pause" });
    expect(client.state.name).toBe("paused");
  });

  it("does not use a start that was refused", () => {
    const { client, latest, join, refusals } = setUp({ start: { index: 1 } });
    join();
    client.start({ index: 99 });
    latest().delivers({ type: "error", code: "unknown_start", message: "no such start", fatal: false, seq: 1 });
    expect(refusals.map(({ code }) => code)).toEqual(["unknown_start"]);
    expect(client.startedFrom).toEqual({ index: 1 });
    client.start({ index: 2 });
    latest().delivers({ type: "receipt", about: "control", seq: 2, status: "applied", frame: 9 });
    expect(client.startedFrom).toEqual({ index: 2 });
  });

  it("keeps the speed", () => {
    const { client, latest, join } = setUp({ speed: 2 });
    join();
    expect(latest().sent[1]).toMatchObject({ command: "speed", speed: 2 });
    client.setSpeed(0.5);
    latest().closes(1006);
    vi.advanceTimersByTime(400);
    latest().opens();
    latest().delivers(welcome);
    expect(latest().sent[1]).toMatchObject({ command: "speed", speed: 0.5 });
    expect(client.speed).toBe(0.5);
  });

  it("ignores messages of an abandoned socket", () => {
    const { client, latest, join } = setUp();
    join();
    const old = latest();
    old.closes(1006);
    old.delivers(welcome);
    expect(client.state.name).toBe("reconnecting");
  });

  it("is reopened at once by connect()", () => {
    const { client, latest, join, sockets } = setUp();
    join();
    latest().closes(1006);
    client.connect();
    vi.advanceTimersByTime(60_000);
    expect(sockets).toHaveLength(2);
  });

  it("is retried after growing, bounded delays", () => {
    expect([1, 2, 3].map((attempt) => backoffMs(attempt, 0.5))).toEqual([250, 500, 1000]);
    expect(backoffMs(50, 0.999)).toBeLessThanOrEqual(10_000);
    expect(backoffMs(1, 0)).toBeGreaterThan(0);
  });
});

describe("a permanent failure", () => {
  it.each(["unknown_world", "bad_version", "origin_refused", "unauthorized"])("stops after %s", (code) => {
    const { client, latest, sockets } = setUp();
    client.connect();
    latest().opens();
    latest().delivers({ type: "error", code, message: "no", fatal: true });
    latest().closes(1008);
    expect(client.state).toMatchObject({ name: "failed", reason: { code, message: "no" } });
    vi.advanceTimersByTime(60_000);
    expect(sockets).toHaveLength(1);
  });

  it("stops after a policy close without a message, and after an unreadable message", () => {
    const first = setUp();
    first.client.connect();
    first.latest().closes(1008);
    expect(first.client.state.name).toBe("failed");
    const second = setUp();
    second.join();
    second.latest().onmessage?.({ data: "text" });
    expect(second.client.state).toMatchObject({ name: "failed", reason: expect.any(ProtocolViolation) });
  });

  it.each(["server_full", "not_ready", "shutting_down", "internal"])("tries again after %s", (code) => {
    const { client, latest, sockets } = setUp();
    client.connect();
    latest().opens();
    latest().delivers({ type: "error", code, message: "later", fatal: true });
    latest().closes(1013);
    expect(client.state).toMatchObject({ name: "reconnecting", reason: { code } });
    vi.advanceTimersByTime(400);
    expect(sockets).toHaveLength(2);
  });
});
