/**
 * The wire protocol's messages. GENERATED from server/wire/protocol.py by generate_protocol.py: do not edit.
 *
 * Messages are named `...Message` so that they do not shadow types of the browser.
 */

export const PROTOCOL_VERSION = 1;

export type ClientMessage =
  | HelloMessage
  | ActMessage
  | AckMessage
  | PauseMessage
  | PlayMessage
  | StepMessage
  | StartMessage
  | SetPacingMessage
  | SetSpeedMessage
  | RewindMessage
  | ForkMessage
  | SaveMessage
  | GetLogMessage
  | ByeMessage;

export type ServerMessage =
  | WelcomeMessage
  | FrameMessage
  | ReceiptMessage
  | ForkedMessage
  | SavedMessage
  | ActionLogMessage
  | QueuedMessage
  | GoAwayMessage
  | ErrorMessage;

/** Frames up to index `frame` have been presented, or dropped by the client; this frees flow-control credit. */
export interface AckMessage {
  readonly type: "ack";
  readonly frame: number;
}

/**
 * The player's input from now on. `buttons`: names of all buttons held (the latest act wins, but a button in any
 * act is applied for at least one chunk). `axes`: movement since the last act, which adds up until it is applied.
 * `seq` increases with every act. `t_client`: any clock of the client, in milliseconds; frames echo it.
 */
export interface ActMessage {
  readonly type: "act";
  readonly axes?: Readonly<Record<string, number>>;
  readonly buttons?: ReadonlyArray<string>;
  readonly seq: number;
  readonly t_client?: number | null;
}

/**
 * The input of the run from its beginning. Started at `start_index` with `seed` and sent act by act in lock-step,
 * it generates the same frames again. `start_index` is None if the run began with a picture, which the client has.
 * `complete` is false if the run was too long to keep; `inputs` then holds only its beginning. `seq`: of the `log`.
 */
export interface ActionLogMessage {
  readonly type: "action_log";
  readonly complete: boolean;
  readonly inputs: ReadonlyArray<LoggedInput>;
  readonly seed: number;
  readonly seq: number | null;
  readonly start_index: number | null;
}

/** An axis: the `name` for acts, a `label` for people, its range per chunk, and its `source`, such as "mouse_x". */
export interface AxisInfo {
  readonly high: number;
  readonly label: string;
  readonly low: number;
  readonly name: string;
  readonly source: string;
}

/** A button: the `name` for acts, a `label` for people, and `keys` as DOM `KeyboardEvent.code` values. */
export interface ButtonInfo {
  readonly keys: ReadonlyArray<string>;
  readonly label: string;
  readonly name: string;
}

/**
 * The client is leaving; the server frees its slot and closes with 1000. `keep`: whether the session can still be
 * resumed with its ticket, as after a lost connection.
 */
export interface ByeMessage {
  readonly type: "bye";
  readonly keep?: boolean;
}

/**
 * The server refused something. `fatal`: the connection closes next. `about` and `seq`: which act or control it
 * refused.
 */
export interface ErrorMessage {
  readonly type: "error";
  readonly about?: "act" | "control" | null;
  readonly code: ErrorCode;
  readonly fatal: boolean;
  readonly message: string;
  readonly seq?: number | null;
}

/** All values of `code` in an `error` message. */
export type ErrorCode = "bad_message" | "bad_version" | "unknown_world" | "unknown_start" | "unknown_frame" | "unknown_branch" | "unknown_ticket" | "taken_over" | "idle" | "bad_action" | "unsupported" | "image_too_large" | "bad_image" | "bad_state" | "message_too_large" | "too_many_pending" | "rate_limited" | "server_full" | "too_many_connections" | "unauthorized" | "origin_refused" | "handshake_timeout" | "not_ready" | "shutting_down" | "internal";

/** Branch the session at frame `run_frame` of the run, by default the newest; answered by `forked`. */
export interface ForkMessage {
  readonly command: "fork";
  readonly type: "control";
  readonly run_frame?: number | null;
  readonly seq?: number | null;
}

/**
 * A branch is ready: start from its `ticket` (`StartFrom.branch`), as often as you like within `expires_s` seconds.
 * It begins with the picture of frame `run_frame` of the run. `seq`: of the `fork`.
 */
export interface ForkedMessage {
  readonly type: "forked";
  readonly expires_s: number;
  readonly run_frame: number;
  readonly seq: number | null;
  readonly ticket: string;
}

/**
 * One picture. A chunk of several pixel frames arrives as several of these with the same `chunk`.
 *
 * `index` and `chunk` count pixel frames and chunks over the whole session; a gap in `index` means that the server
 * dropped frames in favour of newer ones. `run` counts starts and rewinds. `run_frame` counts within a run, whose
 * first picture has the `kind` "start" and the number 0 (the last frame of the context), or the number of the frame
 * that was rewound to or branched from. `applied_seq`: the newest act whose input is in this chunk (None before the
 * first). `t_client_echo`: that act's `t_client`. `end_of_chunk`: whether this is the chunk's last picture.
 */
export interface FrameMessage {
  readonly type: "frame";
  readonly applied_seq: number | null;
  readonly chunk: number;
  readonly encoding: "jpeg" | "png";
  readonly end_of_chunk: boolean;
  readonly index: number;
  readonly kind: "start" | "generated";
  readonly payload: Uint8Array;
  readonly run: number;
  readonly run_frame: number;
  readonly t_client_echo: number | null;
  readonly timings: Timings;
}

/** Request the input of every chunk of this run; answered by `action_log`. */
export interface GetLogMessage {
  readonly command: "log";
  readonly type: "control";
  readonly seq?: number | null;
}

/** The server will close this connection in `time_left_s` seconds. */
export interface GoAwayMessage {
  readonly type: "go_away";
  readonly reason: string;
  readonly time_left_s: number;
}

/**
 * The first message, sent once. `encodings`: in order of preference. `receipts`: whether to send receipts for each
 * `act`. `token`: for servers that require one. With `resume`, the session keeps its own pacing, start and receipts.
 */
export interface HelloMessage {
  readonly type: "hello";
  readonly encodings?: ReadonlyArray<string>;
  readonly pacing?: "realtime" | "lockstep";
  readonly receipts?: boolean;
  readonly resume?: Resume | null;
  readonly start?: StartFrom;
  readonly token?: string | null;
  readonly version: number;
  readonly world: string;
}

/**
 * What the server accepts from this session. `timeline_frames`: how many frames back `rewind` and `fork` reach.
 * `session_bytes`: how much of the server's memory the session's past may take, which decides that.
 */
export interface Limits {
  readonly max_image_bytes: number;
  readonly max_message_bytes: number;
  readonly max_pending_acts: number;
  readonly max_unacked_chunks: number;
  readonly session_bytes?: number;
  readonly timeline_frames?: number;
}

/** The same input for `num_chunks` chunks. `buttons`: those that were down. `axes`: the movement in each chunk. */
export interface LoggedInput {
  readonly axes: Readonly<Record<string, number>>;
  readonly buttons: ReadonlyArray<string>;
  readonly num_chunks: number;
}

/** Stop generating. Frames that are already generated may still arrive. */
export interface PauseMessage {
  readonly command: "pause";
  readonly type: "control";
  readonly seq?: number | null;
}

/** Continue after a pause. */
export interface PlayMessage {
  readonly command: "play";
  readonly type: "control";
  readonly seq?: number | null;
}

/** No slot is free: `position` 1 is next. `eta_s`: the estimated wait in seconds, None if unknown. */
export interface QueuedMessage {
  readonly type: "queued";
  readonly eta_s: number | null;
  readonly position: number;
}

/**
 * The act or control `seq` was `received`, or `applied` from `frame` on.
 *
 * `about`: which of the two number series `seq` belongs to. For an applied act, `frame` is the index of the first
 * pixel frame generated with it. A control is applied when it takes effect; `frame` is then the next frame's index.
 */
export interface ReceiptMessage {
  readonly type: "receipt";
  readonly about: "act" | "control";
  readonly frame: number | null;
  readonly seq: number;
  readonly status: "received" | "applied";
}

/**
 * Which earlier session to resume. `ticket`: its `resume_ticket`. `last_frame`: the newest frame that arrived, or
 * None if none of its frames is on the screen any more.
 */
export interface Resume {
  readonly last_frame?: number | null;
  readonly ticket: string;
}

/**
 * Return to frame `run_frame` of the run (the last of a chunk, at most `limits.timeline_frames` ago). A new run
 * continues from there; its first picture is that frame.
 */
export interface RewindMessage {
  readonly command: "rewind";
  readonly type: "control";
  readonly run_frame: number;
  readonly seq?: number | null;
}

/** Request the session as a file, at frame `run_frame` of the run, by default the newest; answered by `saved`. */
export interface SaveMessage {
  readonly command: "save";
  readonly type: "control";
  readonly run_frame?: number | null;
  readonly seq?: number | null;
}

/**
 * The session as a `file` to start from (`StartFrom.state`), here or on another server of the same world, at any
 * time. It begins with the picture of frame `run_frame` of the run. `seq`: of the `save`.
 */
export interface SavedMessage {
  readonly type: "saved";
  readonly file: Uint8Array;
  readonly run_frame: number;
  readonly seq: number | null;
}

/** Switch between real time (the world's own rate) and lock-step (one chunk per act, no frame dropped). */
export interface SetPacingMessage {
  readonly command: "pacing";
  readonly type: "control";
  readonly pacing: "realtime" | "lockstep";
  readonly seq?: number | null;
}

/** Real-time pacing at `speed` times the world's own rate, or as fast as acks allow if `speed` is None. */
export interface SetSpeedMessage {
  readonly command: "speed";
  readonly type: "control";
  readonly seq?: number | null;
  readonly speed: number | null;
}

/** Begin a new run in the same session, from any `StartFrom`. */
export interface StartMessage {
  readonly command: "start";
  readonly type: "control";
  readonly seq?: number | null;
  readonly start?: StartFrom;
}

/**
 * Where a session starts: at most one of these four, by default the world's first start.
 *
 * `index`: one of the world's starts. `image`: a PNG, JPEG, WebP or GIF; an animated one is a clip that the world
 * continues, a still one is repeated to fill the context. `branch`: the ticket of a `forked` message. `state`: the
 * `file` of a `saved` message. `seed` fixes the noise of everything generated from there; a branch and a state bring
 * their own, so that with the same input they generate the same frames as the session they came from.
 */
export interface StartFrom {
  readonly branch?: string | null;
  readonly image?: Uint8Array | null;
  readonly index?: number | null;
  readonly seed?: number | null;
  readonly state?: Uint8Array | null;
}

/** Pause, then generate `num_chunks` chunks with the newest action. */
export interface StepMessage {
  readonly command: "step";
  readonly type: "control";
  readonly num_chunks?: number;
  readonly seq?: number | null;
}

/**
 * How long each stage of a frame took, in milliseconds, from the arrival of its action to the send queue.
 *
 * `queue_ms`: from the arrival of the newest applied act until it was sampled. `step_ms`: the batched rollout step.
 * `decode_ms`: latents to pixels. `encode_ms`: pixels to payload. `batch_size`: how many sessions shared the step.
 */
export interface Timings {
  readonly batch_size: number;
  readonly decode_ms: number;
  readonly encode_ms: number;
  readonly queue_ms: number;
  readonly step_ms: number;
}

/**
 * The usual values of one statistic of the world's pictures: the mean over stretches of two seconds, and their
 * standard deviation.
 */
export interface Usual {
  readonly deviation: number;
  readonly mean: number;
}

/**
 * The answer to `hello` once the session has a slot. `resume_ticket` is None if the server does not offer resuming.
 *
 * `generation`: how often the session has been resumed. `last_seq`, of a resumed session: the newest act that arrived
 * (-1 for none); later ones were lost.
 */
export interface WelcomeMessage {
  readonly type: "welcome";
  readonly encoding: "jpeg" | "png";
  readonly generation?: number;
  readonly last_seq?: number | null;
  readonly limits: Limits;
  readonly pacing: "realtime" | "lockstep";
  readonly resume_ticket: string | null;
  readonly session: string;
  readonly version: number;
  readonly world: WorldInfo;
}

/**
 * A served world, as a client needs to know it; also an item of `GET /v1/worlds`.
 *
 * `statistics`: of the world's real pictures, in grey levels (0 to 255): `brightness` (mean), `contrast` (standard
 * deviation), `sharpness` (mean difference of neighbouring pixels), `motion` (mean difference of successive
 * pictures); empty if unknown. `pixelated`: the pictures consist of blocks; enlarge them with hard edges.
 * `timeline_frames`: how many frames back sessions of this world can go.
 */
export interface WorldInfo {
  readonly axes: ReadonlyArray<AxisInfo>;
  readonly buttons: ReadonlyArray<ButtonInfo>;
  readonly chunk_frames: number;
  readonly data_license: string;
  readonly description: string;
  readonly exclusive_buttons: boolean;
  readonly fps: number;
  readonly height: number;
  readonly name: string;
  readonly pixelated?: boolean;
  readonly starts: ReadonlyArray<string>;
  readonly statistics?: Readonly<Record<string, Usual>>;
  readonly timeline_frames?: number;
  readonly title: string;
  readonly width: number;
}
