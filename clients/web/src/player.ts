/**
 * One player in one world: combines connection, picture, input, timeline and statistics.
 *
 * Owns how the parts interact: a changed button is sent as an act at once, a presented frame is acknowledged, and both
 * are measured. Of the page it knows only the canvas; a page listens to `events` and reads `stats`.
 */

import { LightconeClient } from "./client";
import { isResumed, type ClientEvents } from "./client-types";
import { DriftMeter, FIGURES, type Figure } from "./drift";
import { HeldAxes } from "./held-axes";
import { InputState } from "./input";
import type { PlayerEvents, PlayerOptions, PlayerStats } from "./player-types";
import { Presenter } from "./presenter";
import type { ForkedMessage, FrameMessage, StartFrom, WorldInfo } from "./protocol";
import { Replay } from "./replay";
import { LatencyTracker, RateMeter } from "./stats";
import { startOf } from "./take";
import { Timeline } from "./timeline";

/** Drift is not measured on pictures with more pixels than this. */
const MAX_METERED_PIXELS = 256 * 256;
/** Length of the timeline if the welcome does not give one. */
const DEFAULT_TIMELINE_FRAMES = 300;

export class Player {
  readonly client: LightconeClient;
  timeline: Timeline;
  private readonly input: InputState;
  private readonly presenter: Presenter;
  private readonly meter = new RateMeter();
  private readonly latency = new LatencyTracker();
  private readonly drift: DriftMeter;
  private readonly replay: Replay | null;
  private readonly inheritedImage: Uint8Array | null;
  private replaying: boolean;
  private readonly heldAxes: HeldAxes;
  private movesHeldAxes = false;
  private moved: Record<string, number> = {};
  private movedAt: number | null = null;
  private framesPresented = 0;
  private last: FrameMessage | null = null;
  private scrubbed: FrameMessage | null = null;

  constructor(
    readonly world: WorldInfo,
    readonly canvas: HTMLCanvasElement,
    options: PlayerOptions,
    private readonly events: Partial<PlayerEvents> = {},
  ) {
    const { take, image, ...rest } = options;
    this.inheritedImage = image ?? null;
    this.timeline = new Timeline(DEFAULT_TIMELINE_FRAMES);
    this.drift = new DriftMeter(world.statistics ?? {}, world.fps);
    this.input = new InputState({
      buttons: world.buttons.map((button) => button.name),
      exclusive: world.exclusive_buttons,
    });
    this.presenter = new Presenter(canvas, {
      presented: (frame, at) => this.onPresented(frame, at),
      undecodable: (frame, error) => {
        this.client.ack(frame.index);
        events.undecodable?.(error);
      },
    });
    this.client = new LightconeClient({
      ...rest,
      ...(take && { start: startOf(take), pacing: "lockstep" }),
      world: world.name,
      events: this.clientEvents(),
    });
    this.replaying = take !== undefined;
    const chunkMs = (1000 * world.chunk_frames) / world.fps;
    this.heldAxes = new HeldAxes(chunkMs);
    const send = ({ buttons, axes }: { buttons: readonly string[]; axes: Readonly<Record<string, number>> }): void => {
      this.client.act(buttons, axes);
      this.events.buttons?.(buttons);
    };
    this.replay = take ? new Replay(take, chunkMs, send, () => this.onTakeEnd()) : null;
  }

  connect(): void {
    this.client.connect();
  }

  close(): void {
    this.replay?.stop();
    this.client.close();
    this.presenter.reset(this.world.fps);
  }

  /** Leaves the session for another page to resume, and frees its slot. */
  leave(): void {
    this.replay?.stop();
    this.client.leave();
  }

  /** Presses a button for `holder` (a key, a finger, a gamepad); `at` is the event's time stamp. */
  press(button: string, holder: string, at: number): void {
    if (this.input.press(button, holder)) this.sendButtons(at);
  }

  release(button: string, holder: string, at: number): void {
    if (this.input.release(button, holder)) this.sendButtons(at);
  }

  /** Lets go of every button and axis, as when the page loses the focus and will not receive the keyup events. */
  releaseAll(): void {
    this.heldAxes.clear();
    if (this.input.releaseAll()) this.sendButtons(performance.now());
  }

  /** Moves an axis by `amount`; the movement between two animation frames is sent as one act. */
  move(axis: string, amount: number, at: number): void {
    // While paused the movement would accumulate, and during a take the take moves the axes.
    if (this.replaying || this.client.state.name !== "playing") return;
    this.moved[axis] = (this.moved[axis] ?? 0) + amount;
    if (this.movedAt !== null) return;
    this.movedAt = at;
    requestAnimationFrame(() => {
      if (this.movedAt !== null) this.sendButtons(this.movedAt);
    });
  }

  /** Moves an axis by `value` in every chunk from now on, until the next call; 0 stops. */
  holdAxis(axis: string, value: number): void {
    this.heldAxes.hold(axis, value);
    if (this.movesHeldAxes || this.heldAxes.isEmpty) return;
    this.movesHeldAxes = true;
    requestAnimationFrame((now) => this.moveHeldAxes(now));
  }

  private moveHeldAxes(now: number): void {
    for (const [axis, amount] of this.heldAxes.movement(now, this.client.speed ?? 1)) this.move(axis, amount, now);
    this.movesHeldAxes = !this.heldAxes.isEmpty;
    if (this.movesHeldAxes) requestAnimationFrame((later) => this.moveHeldAxes(later));
  }

  togglePause(): void {
    const { state } = this.client;
    if (state.name === "playing") {
      this.latency.dropPending();
      this.client.pause();
    } else if (state.name === "paused") {
      this.showNewest();
      this.meter.reset();
      this.client.play();
    }
  }

  step(): void {
    this.showNewest();
    this.latency.dropPending();
    if (this.replaying) this.replay?.sendNext(); // else the step might have no input of the take
    else if (!this.heldAxes.isEmpty) this.client.act(this.input.pressed(), this.heldAxes.chunk());
    this.client.step();
  }

  /** Starts a new run and ends a take that is being played. */
  restart(start: StartFrom): void {
    this.takeOver();
    this.latency.dropPending();
    this.client.start(start);
  }

  /** The picture from which the run started, if any. */
  get image(): Uint8Array | null {
    const { branch, image } = this.client.startedFrom;
    return branch ? this.inheritedImage : (image ?? null);
  }

  /** The frames that can be rewound to, oldest first. */
  stops(): FrameMessage[] {
    return this.timeline.stops(this.world.chunk_frames);
  }

  /** Pauses and shows a past frame. */
  scrub(frame: FrameMessage): void {
    if (this.client.state.name === "playing") this.togglePause();
    this.scrubbed = frame;
    void this.presenter.show(frame);
    // This dropped the pictures still to be shown; the server waits until they are acknowledged.
    const { newest } = this.timeline;
    if (newest) this.client.ack(newest.index);
  }

  /** Rewinds to the past frame that is shown and plays from there. Rejects if the server cannot go back to it. */
  async playFromHere(): Promise<void> {
    const shown = this.scrubbed;
    if (shown && shown !== this.timeline.newest) await this.client.rewind(shown.run_frame);
    this.scrubbed = null;
    this.meter.reset();
    this.latency.dropPending();
    this.client.play();
  }

  /** Branches at the frame that is shown. */
  branch(): Promise<ForkedMessage> {
    return this.client.fork(this.scrubbed?.run_frame ?? null);
  }

  /** Ends the take; the player continues from the current frame. */
  takeOver(): void {
    if (!this.replaying) return;
    this.replay?.stop();
    this.replaying = false;
    this.client.setPacing("realtime");
    this.sendButtons(performance.now());
  }

  get stats(): PlayerStats {
    const drift = Object.fromEntries(FIGURES.map((figure) => [figure, this.drift.distance(figure)]));
    return {
      fps: this.meter.rate(performance.now()),
      actionToPhotonMs: this.latency.medianMs(),
      framesPresented: this.framesPresented,
      lastFrameIndex: this.last?.index ?? null,
      run: this.last?.run ?? null,
      runFrame: this.last?.run_frame ?? null,
      appliedSeq: this.last?.applied_seq ?? null,
      sentSeq: this.client.sentSeq,
      state: this.client.state.name,
      timings: this.last?.timings ?? null,
      drift: drift as Record<Figure, number | null>,
      scrubbedTo: this.scrubbed?.run_frame ?? null,
      replay: this.replaying && this.replay ? [this.replay.place, this.replay.total] : null,
    };
  }

  private clientEvents(): Partial<ClientEvents> {
    const { presented: _1, undecodable: _2, buttons: _3, replayed: _4, ...forwarded } = this.events;
    return {
      ...forwarded,
      state: (state) => {
        if (state.name !== "playing") this.forgetMovement();
        this.events.state?.(state);
      },
      welcome: (welcome) => {
        if (isResumed(welcome) && this.last !== null) this.latency.dropPending();
        else this.beginSession(welcome.world.fps, welcome.limits?.timeline_frames ?? DEFAULT_TIMELINE_FRAMES);
        // A new session does not know which buttons are held; a resumed one holds those of before.
        if (isResumed(welcome) || this.input.pressed().length > 0) this.sendButtons(performance.now());
        this.events.welcome?.(welcome);
      },
      frame: (frame) => {
        // A new run replaces any past frame on the screen.
        if (frame.run !== this.timeline.newest?.run) this.scrubbed = null;
        this.timeline.push(frame);
        if (this.scrubbed) this.client.ack(frame.index);
        else this.presenter.push(frame);
      },
    };
  }

  private beginSession(fps: number, timelineFrames: number): void {
    this.presenter.reset(fps);
    this.meter.reset();
    this.drift.reset();
    this.latency.dropPending();
    this.timeline = new Timeline(timelineFrames);
    this.last = null;
    this.scrubbed = null;
    if (this.replaying) this.replay?.start();
  }

  private onTakeEnd(): void {
    this.replaying = false;
    this.client.pause();
    this.client.setPacing("realtime");
    this.events.buttons?.([]);
    this.events.replayed?.();
  }

  /** Shows the newest frame if a past frame is on the screen. */
  private showNewest(): void {
    if (!this.scrubbed) return;
    this.scrubbed = null;
    const { newest } = this.timeline;
    if (newest) void this.presenter.show(newest);
  }

  private sendButtons(at: number): void {
    if (this.replaying) return;
    const pressed = this.input.pressed();
    const seq = this.client.act(pressed, this.moved);
    this.forgetMovement();
    // While paused, an act waits for the next step; that wait is not latency.
    if (seq !== null && this.client.state.name === "playing") this.latency.sent(seq, at);
    this.events.buttons?.(pressed);
  }

  private forgetMovement(): void {
    this.moved = {};
    this.movedAt = null;
  }

  private onPresented(frame: FrameMessage, at: number): void {
    this.client.ack(frame.index);
    const following = this.last !== null && frame.run === this.last.run && frame.run_frame === this.last.run_frame + 1;
    this.last = frame;
    this.framesPresented += 1;
    this.meter.mark(at);
    if (frame.applied_seq !== null) this.latency.presented(frame.applied_seq, at);
    this.measure(following);
    if (this.replaying) this.replay?.presented(Math.floor(frame.run_frame / this.world.chunk_frames));
    this.events.presented?.(frame);
  }

  private measure(following: boolean): void {
    const { width, height } = this.canvas;
    if (this.scrubbed === null && width * height <= MAX_METERED_PIXELS) {
      this.drift.push(this.presenter.pixels().data, width, height, following);
    }
  }
}
