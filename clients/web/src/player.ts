/**
 * One player at one world: connection, picture, input and figures put together.
 *
 * Owns how the parts meet: a changed button becomes an act at once, a presented frame becomes an ack, and both become
 * figures. Knows a canvas but nothing else of a page; whoever builds one listens to `events` and reads `stats`.
 */

import { LightconeClient, type ClientEvents, type ClientOptions } from "./client";
import type { LightconeError } from "./errors";
import { InputState } from "./input";
import { Presenter } from "./presenter";
import type { FrameMessage, StartFrom, Timings, WorldInfo } from "./protocol";
import { LatencyTracker, RateMeter } from "./stats";

export interface PlayerStats {
  /** Frames presented per second, over the last second. */
  readonly fps: number;
  /** Median of recent actions, from input event to the screen; null before the first. */
  readonly actionToPhotonMs: number | null;
  readonly framesPresented: number;
  /** Index of the newest frame presented in this session; null before the first. */
  readonly lastFrameIndex: number | null;
  /** Frames presented since the start of the current run, as the server counts them. */
  readonly runFrame: number | null;
  /** The newest act that the frame on the screen obeys. */
  readonly appliedSeq: number | null;
  /** The newest act sent. */
  readonly sentSeq: number;
  readonly state: string;
  readonly timings: Timings | null;
}

export interface PlayerEvents extends Omit<ClientEvents, "frame"> {
  /** The set of buttons held has changed. */
  buttons(pressed: readonly string[]): void;
  presented(frame: FrameMessage): void;
  undecodable(error: LightconeError): void;
}

export class Player {
  readonly client: LightconeClient;
  private readonly input: InputState;
  private readonly presenter: Presenter;
  private readonly meter = new RateMeter();
  private readonly latency = new LatencyTracker();
  private framesPresented = 0;
  private last: FrameMessage | null = null;

  constructor(
    readonly world: WorldInfo,
    canvas: HTMLCanvasElement,
    options: Omit<ClientOptions, "world" | "events">,
    private readonly events: Partial<PlayerEvents> = {},
  ) {
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
    this.client = new LightconeClient({ ...options, world: world.name, events: this.clientEvents() });
  }

  connect(): void {
    this.client.connect();
  }

  close(): void {
    this.client.close();
    this.presenter.reset(this.world.fps);
  }

  /** `holder` (a key, a finger, a pad) takes hold of a button; `at` is the event's own time stamp. */
  press(button: string, holder: string, at: number): void {
    if (this.input.press(button, holder)) this.sendButtons(at);
  }

  release(button: string, holder: string, at: number): void {
    if (this.input.release(button, holder)) this.sendButtons(at);
  }

  /** Lets go of everything: the page has lost the keyboard and will not hear the keys come up. */
  releaseAll(): void {
    if (this.input.releaseAll()) this.sendButtons(performance.now());
  }

  togglePause(): void {
    const { state } = this.client;
    if (state.name === "playing") {
      this.latency.dropPending();
      this.client.pause();
    } else if (state.name === "paused") {
      this.meter.reset();
      this.client.play();
    }
  }

  step(): void {
    this.latency.dropPending();
    this.client.step();
  }

  restart(start: StartFrom): void {
    this.latency.dropPending();
    this.client.start(start);
  }

  get stats(): PlayerStats {
    return {
      fps: this.meter.rate(performance.now()),
      actionToPhotonMs: this.latency.medianMs(),
      framesPresented: this.framesPresented,
      lastFrameIndex: this.last?.index ?? null,
      runFrame: this.last?.run_frame ?? null,
      appliedSeq: this.last?.applied_seq ?? null,
      sentSeq: this.client.sentSeq,
      state: this.client.state.name,
      timings: this.last?.timings ?? null,
    };
  }

  private clientEvents(): Partial<ClientEvents> {
    const { presented: _presented, undecodable: _undecodable, buttons: _buttons, ...passedOn } = this.events;
    return {
      ...passedOn,
      welcome: (welcome) => {
        this.beginSession(welcome.world.fps);
        this.events.welcome?.(welcome);
      },
      frame: (frame) => this.presenter.push(frame),
    };
  }

  private beginSession(fps: number): void {
    this.presenter.reset(fps);
    this.meter.reset();
    this.latency.dropPending();
    this.last = null;
    // The new session knows nothing of buttons that have been held since before it began.
    if (this.input.pressed().length > 0) this.sendButtons(performance.now());
  }

  private sendButtons(at: number): void {
    const pressed = this.input.pressed();
    const seq = this.client.act(pressed);
    // While paused an act waits for the player's next step; that wait is not latency.
    if (seq !== null && this.client.state.name === "playing") this.latency.sent(seq, at);
    this.events.buttons?.(pressed);
  }

  private onPresented(frame: FrameMessage, at: number): void {
    this.client.ack(frame.index);
    this.last = frame;
    this.framesPresented += 1;
    this.meter.mark(at);
    if (frame.applied_seq !== null) this.latency.presented(frame.applied_seq, at);
    this.events.presented?.(frame);
  }
}
