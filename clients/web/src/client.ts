/**
 * The connection to a Lightcone server: one world, one player.
 *
 * Owns the socket, its state, the handshake, sequence numbers and coming back to the session where a connection was lost
 * (whether and when, reconnect.ts says). Knows no canvas and no keyboard, and needs no browser but `WebSocket`. A client says what it is doing through `state`
 * and never fails silently.
 */

import { ConnectionLost, LightconeError, ProtocolViolation, ServerRefusal } from "./errors";
import {
  PROTOCOL_VERSION,
  type ActMessage,
  type ActionLogMessage,
  type ClientMessage,
  type ErrorMessage,
  type ForkedMessage,
  type FrameMessage,
  type HelloMessage,
  type ReceiptMessage,
  type SavedMessage,
  type ServerMessage,
  type StartFrom,
  type WelcomeMessage,
} from "./protocol";
import { Questions, type Answer, type AnswerTo } from "./questions";
import { backoffMs, describeClose, isHopeless } from "./reconnect";
import { decodeMessage, encodeMessage } from "./wire";

/** Acts that may have been lost on their way, at most; the server keeps no more either. */
const KEPT_ACTS = 64;

/** Whether a session goes on that began over another connection. */
export function isResumed(welcome: WelcomeMessage): boolean {
  return (welcome.generation ?? 0) > 0;
}

export type ClientState =
  | { readonly name: "connecting" }
  | { readonly name: "queued"; readonly position: number; readonly etaSeconds: number | null }
  | { readonly name: "playing" }
  | { readonly name: "paused" }
  | { readonly name: "reconnecting"; readonly attempt: number; readonly delayMs: number; readonly reason: LightconeError }
  | { readonly name: "failed"; readonly reason: LightconeError }
  | { readonly name: "closed" };

export interface ClientEvents {
  state(state: ClientState): void;
  welcome(welcome: WelcomeMessage): void;
  frame(frame: FrameMessage): void;
  receipt(receipt: ReceiptMessage): void;
  /** Something was refused and the session goes on. Errors that end it arrive as a state instead. */
  refusal(refusal: ServerRefusal): void;
  /** The server will close the connection soon; the client reconnects by itself. */
  goAway(secondsLeft: number, reason: string): void;
}

export interface ClientOptions {
  /** The server's stream, such as `ws://127.0.0.1:8000/v1/stream`. */
  readonly url: string;
  readonly world: string;
  readonly encodings?: readonly string[];
  readonly pacing?: HelloMessage["pacing"];
  readonly start?: StartFrom;
  /** See `setSpeed`; 1 by default. */
  readonly speed?: number | null;
  readonly receipts?: boolean;
  readonly token?: string;
  /** A session of before to go on with, by its `resume_ticket`; where it is gone, a new one begins. */
  readonly ticket?: string | null;
  readonly events?: Partial<ClientEvents>;
  /** Opens a socket; replaceable where there is no global `WebSocket`. */
  readonly openSocket?: (url: string) => WebSocket;
}

export class LightconeClient {
  private socket: WebSocket | null = null;
  private current: ClientState = { name: "closed" };
  private wantsPause = false;
  private attempt = 0;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private lastRefusal: ServerRefusal | null = null;
  private session: WelcomeMessage | null = null;
  private actSeq = 0;
  private recentActs: ActMessage[] = [];
  private ticket: string | null;
  private lastFrame: number | null = null;
  private controlSeq = 0;
  private readonly questions = new Questions();
  private startFrom: StartFrom | undefined;
  private pacing: HelloMessage["pacing"];
  private wantedSpeed: number | null;

  constructor(private readonly options: ClientOptions) {
    this.ticket = options.ticket ?? null;
    this.startFrom = options.start;
    this.pacing = options.pacing;
    this.wantedSpeed = options.speed === undefined ? 1 : options.speed;
  }

  get state(): ClientState {
    return this.current;
  }

  /** The session's welcome, or null while there is no session. */
  get welcome(): WelcomeMessage | null {
    return this.session;
  }

  /** What the newest start began with; a new session begins there too, should this one be lost. */
  get startedFrom(): StartFrom {
    return this.startFrom ?? {};
  }

  get speed(): number | null {
    return this.wantedSpeed;
  }

  /** The sequence number of the newest act; 0 before the first. */
  get sentSeq(): number {
    return this.actSeq;
  }

  /** Opens the connection. Does nothing when one is open or on its way. */
  connect(): void {
    if (this.socket) return;
    clearTimeout(this.timer);
    this.setState({ name: "connecting" });
    this.lastRefusal = null;
    const socket = (this.options.openSocket ?? ((url: string) => new WebSocket(url)))(this.options.url);
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    socket.onopen = () => this.send(this.hello());
    socket.onmessage = (event: MessageEvent<unknown>) => {
      if (socket === this.socket) this.receive(event.data);
    };
    socket.onclose = (event: CloseEvent) => {
      if (socket === this.socket) this.lost(event.code, event.reason);
    };
  }

  /** Leaves for good, telling the server. */
  close(): void {
    this.send({ type: "bye" });
    this.ticket = null;
    this.drop();
    this.setState({ name: "closed" });
  }

  /**
   * Sends the player's input: all buttons held now, and axis movement since the last act.
   * Returns the act's sequence number, or null when there is no session to act in.
   */
  act(buttons: readonly string[], axes: Readonly<Record<string, number>> = {}, now = performance.now()): number | null {
    if (!this.session) return null;
    this.actSeq += 1;
    const act: ActMessage = { type: "act", seq: this.actSeq, buttons, axes, t_client: now };
    this.recentActs = [...this.recentActs.slice(1 - KEPT_ACTS), act];
    this.send(act);
    return this.actSeq;
  }

  /** Tells the server that every frame up to `frame` is on the screen, or was dropped for a newer one. */
  ack(frame: number): void {
    if (this.session) this.send({ type: "ack", frame });
  }

  pause(): void {
    this.hold(true);
    this.control({ command: "pause" });
  }

  play(): void {
    this.hold(false);
    this.control({ command: "play" });
  }

  /** Pauses and generates `chunks` chunks with the newest action. */
  step(chunks = 1): void {
    this.hold(true);
    this.control({ command: "step", num_chunks: chunks });
  }

  /** Restarts from one of the world's starts, or from a picture; from the first start by default. */
  start(start: StartFrom = {}): void {
    const begins = (): void => void (this.startFrom = start);
    const seq = this.control({ command: "start", start });
    if (seq === null) return begins();
    // Where the connection is lost before the answer, the next session begins there; where it is refused, it does not.
    this.questions.put(seq, "receipt", begins, (reason) => {
      if (reason instanceof ServerRefusal) this.options.events?.refusal?.(reason);
      else begins();
    });
  }

  /** Goes back to a frame of this run and on from there. Rejects for frames the server no longer keeps. */
  async rewind(runFrame: number): Promise<void> {
    await this.ask("receipt", { command: "rewind", run_frame: runFrame });
  }

  /** How many times as fast as the world's own rate; null: as fast as frames are acknowledged. */
  setSpeed(speed: number | null): void {
    this.wantedSpeed = speed;
    this.control({ command: "speed", speed });
  }

  setPacing(pacing: "realtime" | "lockstep"): void {
    this.pacing = pacing;
    this.control({ command: "pacing", pacing });
  }

  /** A branch at a frame of this run, now by default; another client may start from its ticket. */
  fork(runFrame: number | null = null): Promise<ForkedMessage> {
    return this.ask("forked", { command: "fork", run_frame: runFrame });
  }

  /** The session at a frame of this run, now by default, as a file; see `StartFrom.state`. */
  save(runFrame: number | null = null): Promise<SavedMessage> {
    return this.ask("saved", { command: "save", run_frame: runFrame });
  }

  /** The input of every chunk of this run so far. */
  actionLog(): Promise<ActionLogMessage> {
    return this.ask("action_log", { command: "log" });
  }

  private hello(): HelloMessage {
    const { world, encodings, receipts, token } = this.options;
    const { pacing } = this;
    return {
      type: "hello",
      version: PROTOCOL_VERSION,
      world,
      ...(encodings && { encodings }),
      ...(pacing && { pacing }),
      ...(this.startFrom && { start: this.startFrom }),
      ...(receipts && { receipts }),
      ...(token && { token }),
      ...(this.ticket && { resume: { ticket: this.ticket, last_frame: this.lastFrame } }),
    };
  }

  /** Returns the control's number, or null when there is no session to control. */
  private control(command: ControlBody): number | null {
    if (!this.session) return null;
    this.controlSeq += 1;
    this.send({ type: "control", seq: this.controlSeq, ...command });
    return this.controlSeq;
  }

  private ask<T extends Answer["type"]>(type: T, command: ControlBody): Promise<AnswerTo<T>> {
    return new Promise((resolve, reject) => {
      const seq = this.control(command);
      if (seq === null) reject(new ConnectionLost("there is no session to ask"));
      else this.questions.put(seq, type, resolve, reject);
    });
  }

  private send(message: ClientMessage): void {
    if (this.socket?.readyState === 1 /* OPEN */) this.socket.send(encodeMessage(message));
  }

  private receive(data: unknown): void {
    let message: ServerMessage | null;
    try {
      message = decodeMessage(data);
    } catch (error) {
      if (!(error instanceof ProtocolViolation)) throw error;
      this.fail(error);
      return;
    }
    if (message) this.handle(message);
  }

  private handle(message: ServerMessage): void {
    const events = this.options.events ?? {};
    switch (message.type) {
      case "welcome":
        return this.welcomed(message);
      case "frame":
        this.attempt = 0;
        this.lastFrame = message.index;
        return events.frame?.(message);
      case "receipt":
        if (message.about === "control") this.questions.answer(message);
        return events.receipt?.(message);
      case "forked":
      case "saved":
      case "action_log":
        return this.questions.answer(message);
      case "queued":
        return this.setState({ name: "queued", position: message.position, etaSeconds: message.eta_s });
      case "go_away":
        return events.goAway?.(message.time_left_s, message.reason);
      case "error":
        return this.refused(message);
    }
  }

  private refused({ code, message, fatal, about, seq }: ErrorMessage): void {
    const refusal = new ServerRefusal(code, message);
    if (fatal) {
      this.lastRefusal = refusal;
      return;
    }
    // Acts are numbered apart from controls.
    const awaited = about !== "act" && this.questions.refuse(seq ?? -1, refusal);
    if (!awaited) this.options.events?.refusal?.(refusal);
  }

  private welcomed(message: WelcomeMessage): void {
    this.session = message;
    this.ticket = message.resume_ticket;
    const resumed = isResumed(message);
    if (resumed) this.sendAgain(message.last_seq ?? -1);
    else this.lastFrame = null;
    if (this.wantsPause) this.control({ command: "pause" });
    else if (resumed) this.control({ command: "play" });
    if (this.wantedSpeed !== 1 || resumed) this.control({ command: "speed", speed: this.wantedSpeed });
    this.setState({ name: this.wantsPause ? "paused" : "playing" });
    this.options.events?.welcome?.(message);
  }

  /** Acts that were lost with the connection. */
  private sendAgain(lastSeq: number): void {
    this.actSeq = Math.max(this.actSeq, lastSeq);
    for (const act of this.recentActs) if (act.seq > lastSeq) this.send(act);
  }

  private hold(paused: boolean): void {
    if (!this.session) return;
    this.wantsPause = paused;
    this.setState({ name: paused ? "paused" : "playing" });
  }

  private lost(code: number, closeReason: string): void {
    const refusal = this.lastRefusal;
    const reason = refusal ?? new ConnectionLost(describeClose(code, closeReason, this.session !== null));
    if (refusal?.code === "unknown_ticket") this.ticket = null; // a new session, then
    if (isHopeless(refusal, code)) return this.fail(reason);
    this.drop();
    this.attempt += 1;
    const delayMs = backoffMs(this.attempt, Math.random());
    this.timer = setTimeout(() => this.connect(), delayMs);
    this.setState({ name: "reconnecting", attempt: this.attempt, delayMs, reason });
  }

  private fail(reason: LightconeError): void {
    this.drop();
    this.setState({ name: "failed", reason });
  }

  private drop(): void {
    clearTimeout(this.timer);
    const socket = this.socket;
    this.socket = null;
    this.session = null;
    this.questions.refuseAll(new ConnectionLost("the connection was lost"));
    socket?.close();
  }

  private setState(state: ClientState): void {
    this.current = state;
    this.options.events?.state?.(state);
  }
}

type WithoutEnvelope<T> = T extends { readonly command: string } ? Omit<T, "type" | "seq"> : never;
type ControlBody = WithoutEnvelope<ClientMessage>;
