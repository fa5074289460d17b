/**
 * A session with a Lightcone server: one world, one player.
 *
 * Owns the socket, its state, the handshake, sequence numbers and resuming the session after a lost connection
 * (reconnect.ts decides whether and when). Knows no canvas and no keyboard; of the browser it needs only `WebSocket`.
 * Every failure is reported through `state` or `refusal`.
 */

import { isResumed, type ClientOptions, type ClientState } from "./client-types";
import { ConnectionLost, LightconeError, ProtocolViolation, ServerRefusal } from "./errors";
import { PendingRequests, type Reply, type ReplyOf } from "./pending-requests";
import {
  PROTOCOL_VERSION,
  type ActMessage,
  type ActionLogMessage,
  type ClientMessage,
  type ErrorMessage,
  type ForkedMessage,
  type HelloMessage,
  type QueuedMessage,
  type ReceiptMessage,
  type SavedMessage,
  type ServerMessage,
  type StartFrom,
  type WelcomeMessage,
} from "./protocol";
import { backoffMs, describeClose, isPermanentFailure } from "./reconnect";
import { decodeMessage, encodeMessage } from "./wire";

/** How many recent acts are kept for sending again after a reconnect; the server accepts no more pending acts. */
const MAX_RECENT_ACTS = 64;

export class LightconeClient {
  private socket: WebSocket | null = null;
  private current: ClientState = { name: "closed" };
  private pauseRequested: boolean;
  private playSeq: number | null = null;
  private attempt = 0;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private lastRefusal: ServerRefusal | null = null;
  private session: WelcomeMessage | null = null;
  private actSeq = 0;
  private recentActs: ActMessage[] = [];
  private ticket: string | null;
  private lastFrame: number | null = null;
  private controlSeq = 0;
  private readonly requests = new PendingRequests();
  private startFrom: StartFrom | undefined;
  private pacing: HelloMessage["pacing"];
  private requestedSpeed: number | null;

  constructor(private readonly options: ClientOptions) {
    this.pauseRequested = options.paused ?? false;
    this.ticket = options.ticket ?? null;
    this.startFrom = options.start;
    this.pacing = options.pacing;
    this.requestedSpeed = options.speed === undefined ? 1 : options.speed;
  }

  get state(): ClientState {
    return this.current;
  }

  /** The session's welcome, or null while there is no session. */
  get welcome(): WelcomeMessage | null {
    return this.session;
  }

  /** The newest start; if the session is lost, a new session begins there too. */
  get startedFrom(): StartFrom {
    return this.startFrom ?? {};
  }

  get speed(): number | null {
    return this.requestedSpeed;
  }

  get isPaused(): boolean {
    return this.pauseRequested;
  }

  /** With this ticket another client can resume the session; null if there is none to resume. */
  get resumeTicket(): string | null {
    return this.ticket;
  }

  /** The sequence number of the newest act; 0 before the first. */
  get sentSeq(): number {
    return this.actSeq;
  }

  /** Opens the connection. Does nothing if it is open or being opened. */
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
      if (socket === this.socket) this.onClose(event.code, event.reason);
    };
  }

  /** Closes the connection and frees the slot at once, but keeps the session for whoever resumes it with its ticket. */
  leave(): void {
    this.send({ type: "bye", keep: true });
    this.drop();
    this.setState({ name: "closed" });
  }

  /** Ends the session and closes the connection. */
  close(): void {
    this.send({ type: "bye" });
    this.ticket = null;
    this.drop();
    this.setState({ name: "closed" });
  }

  /**
   * Sends the player's input: all buttons held now, and axis movement since the last act.
   * Returns the act's sequence number, or null if there is no session.
   */
  act(buttons: readonly string[], axes: Readonly<Record<string, number>> = {}, now = performance.now()): number | null {
    if (!this.session) return null;
    this.actSeq += 1;
    const act: ActMessage = { type: "act", seq: this.actSeq, buttons, axes, t_client: now };
    this.recentActs = [...this.recentActs.slice(1 - MAX_RECENT_ACTS), act];
    this.send(act);
    return this.actSeq;
  }

  /** Tells the server that every frame up to `frame` has been presented or dropped. */
  ack(frame: number): void {
    if (this.session) this.send({ type: "ack", frame });
  }

  pause(): void {
    this.setPaused(true);
    this.control({ command: "pause" });
  }

  play(): void {
    this.setPaused(false);
    this.sendPlay();
  }

  /** The server answers with a receipt, or first with a place in the queue if others have the time now. */
  private sendPlay(): void {
    this.playSeq = this.control({ command: "play" });
  }

  /** Pauses and generates `chunks` chunks with the newest action. */
  step(chunks = 1): void {
    this.setPaused(true);
    this.control({ command: "step", num_chunks: chunks });
  }

  /** Starts a new run from one of the world's starts, by default the first, or from a picture. */
  start(start: StartFrom = {}): void {
    const setStart = (): void => void (this.startFrom = start);
    const seq = this.control({ command: "start", start });
    if (seq === null) return setStart();
    // A new session also begins there if the connection is lost before the reply, but not if the start is refused.
    this.requests.add(seq, "receipt", setStart, (reason) => {
      if (reason instanceof ServerRefusal) this.options.events?.refusal?.(reason);
      else setStart();
    });
  }

  /** Goes back to a frame of this run and continues from there. Rejects if the server no longer keeps that frame. */
  async rewind(runFrame: number): Promise<void> {
    await this.request("receipt", { command: "rewind", run_frame: runFrame });
  }

  /** Sets the speed as a multiple of the world's own rate; null means as fast as frames are acknowledged. */
  setSpeed(speed: number | null): void {
    this.requestedSpeed = speed;
    this.control({ command: "speed", speed });
  }

  setPacing(pacing: "realtime" | "lockstep"): void {
    this.pacing = pacing;
    this.control({ command: "pacing", pacing });
  }

  /** Branches at a frame of this run, by default the current one; any client can start from the ticket. */
  fork(runFrame: number | null = null): Promise<ForkedMessage> {
    return this.request("forked", { command: "fork", run_frame: runFrame });
  }

  /** Returns the session at a frame of this run, by default the current one, as a file; see `StartFrom.state`. */
  save(runFrame: number | null = null): Promise<SavedMessage> {
    return this.request("saved", { command: "save", run_frame: runFrame });
  }

  /** Returns the input of every chunk of this run so far. */
  actionLog(): Promise<ActionLogMessage> {
    return this.request("action_log", { command: "log" });
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

  /** Sends a control. Returns its sequence number, or null if there is no session. */
  private control(command: ControlBody): number | null {
    if (!this.session) return null;
    this.controlSeq += 1;
    this.send({ type: "control", seq: this.controlSeq, ...command });
    return this.controlSeq;
  }

  private request<T extends Reply["type"]>(type: T, command: ControlBody): Promise<ReplyOf<T>> {
    return new Promise((resolve, reject) => {
      const seq = this.control(command);
      if (seq === null) reject(new ConnectionLost("there is no session"));
      else this.requests.add(seq, type, resolve, reject);
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
        if (message.about === "control") this.applied(message);
        return events.receipt?.(message);
      case "forked":
      case "saved":
      case "action_log":
        return this.requests.resolve(message);
      case "queued":
        return this.queued(message);
      case "go_away":
        return events.goAway?.(message.time_left_s, message.reason);
      case "error":
        return this.refused(message);
    }
  }

  private applied(receipt: ReceiptMessage): void {
    if (this.current.name === "queued" && receipt.seq === this.playSeq) this.setState({ name: "playing" });
    this.requests.resolve(receipt);
  }

  private queued({ position, eta_s }: QueuedMessage): void {
    const returning = this.session !== null;
    if (returning && this.pauseRequested) return; // it was sent before the pause arrived
    this.setState({ name: "queued", position, etaSeconds: eta_s, returning });
  }

  private refused({ code, message, fatal, about, seq }: ErrorMessage): void {
    const refusal = new ServerRefusal(code, message);
    if (fatal) {
      this.lastRefusal = refusal;
      return;
    }
    // Acts and controls are numbered independently.
    const rejected = about !== "act" && this.requests.reject(seq ?? -1, refusal);
    if (!rejected) this.options.events?.refusal?.(refusal);
  }

  private welcomed(message: WelcomeMessage): void {
    this.session = message;
    this.ticket = message.resume_ticket;
    const resumed = isResumed(message);
    if (resumed) this.resendActs(message.last_seq ?? -1);
    else this.lastFrame = null;
    if (this.pauseRequested) this.control({ command: "pause" });
    else if (resumed) this.sendPlay();
    if (this.requestedSpeed !== 1 || resumed) this.control({ command: "speed", speed: this.requestedSpeed });
    this.setState({ name: this.pauseRequested ? "paused" : "playing" });
    this.options.events?.welcome?.(message);
  }

  /** Sends the acts again that were lost with the connection. */
  private resendActs(lastSeq: number): void {
    this.actSeq = Math.max(this.actSeq, lastSeq);
    for (const act of this.recentActs) if (act.seq > lastSeq) this.send(act);
  }

  private setPaused(paused: boolean): void {
    if (!this.session) return;
    this.pauseRequested = paused;
    this.setState({ name: paused ? "paused" : "playing" });
  }

  private onClose(code: number, closeReason: string): void {
    const refusal = this.lastRefusal;
    const reason = refusal ?? new ConnectionLost(describeClose(code, closeReason, this.session !== null));
    if (refusal?.code === "unknown_ticket") this.ticket = null; // begin a new session
    if (isPermanentFailure(refusal, code)) return this.fail(reason);
    this.drop();
    this.attempt += 1;
    const delayMs = refusal?.code === "unknown_ticket" ? 0 : backoffMs(this.attempt, Math.random());
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
    this.requests.rejectAll(new ConnectionLost("the connection was lost"));
    socket?.close();
  }

  private setState(state: ClientState): void {
    this.current = state;
    this.options.events?.state?.(state);
  }
}

type WithoutEnvelope<T> = T extends { readonly command: string } ? Omit<T, "type" | "seq"> : never;
type ControlBody = WithoutEnvelope<ClientMessage>;
