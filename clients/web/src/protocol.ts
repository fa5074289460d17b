/**
 * The wire protocol's messages. GENERATED from server/wire/protocol.py by generate_protocol.py: do not edit.
 *
 * Messages are named `...Message` so that none shadows a type of the browser.
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

/** Every frame with index <= `frame` has been presented (or dropped by the client); it frees flow-control credit. */
export interface AckMessage {
  readonly type: "ack";
  readonly frame: number;
}

/**
 * The player's input from now on. `buttons`: names of all buttons held (absolute: latest wins, but a button that
 * appears in any act is applied for at least one chunk). `axes`: movement since the last act (adds up until applied).
 * `seq` rises with every act. `t_client`: any clock of the client in milliseconds; frames echo it.
 */
export interface ActMessage {
  readonly type: "act";
  readonly axes?: Readonly<Record<string, number>>;
  readonly buttons?: ReadonlyArray<string>;
  readonly seq: number;
  readonly t_client?: number | null;
}

/**
 * The input of the run from its beginning: sent act by act in lock-step to a start at `start_index` with `seed`, it
 * makes the same frames again. `start_index` is None where the run began with a picture, which the client has. Not
 * `complete` where the run was too long to keep; the `inputs` are then its beginning. `seq`: of the `log`.
 */
export interface ActionLogMessage {
  readonly type: "action_log";
  readonly complete: boolean;
  readonly inputs: ReadonlyArray<LoggedInput>;
  readonly seed: number;
  readonly seq: number | null;
  readonly start_index: number | null;
}

/** An axis: the `name` that acts use, its range per chunk and its natural `source`, such as "mouse_x". */
export interface AxisInfo {
  readonly high: number;
  readonly label: string;
  readonly low: number;
  readonly name: string;
  readonly source: string;
}

/** A button: the `name` that acts use, a `label` for people, `keys` as DOM `KeyboardEvent.code` values. */
export interface ButtonInfo {
  readonly keys: ReadonlyArray<string>;
  readonly label: string;
  readonly name: string;
}

/** The client is leaving; the server frees its slot and closes with 1000. */
export interface ByeMessage {
  readonly type: "bye";
}

/**
 * Something the client asked for was refused. `fatal`: the connection closes next. `about` and `seq`: which
 * act or control it was.
 */
export interface ErrorMessage {
  readonly type: "error";
  readonly about?: "act" | "control" | null;
  readonly code: ErrorCode;
  readonly fatal: boolean;
  readonly message: string;
  readonly seq?: number | null;
}

/** Every `code` that an `error` message can carry. */
export type ErrorCode = "bad_message" | "bad_version" | "unknown_world" | "unknown_start" | "unknown_frame" | "unknown_branch" | "unknown_ticket" | "taken_over" | "idle" | "bad_action" | "unsupported" | "image_too_large" | "bad_image" | "bad_state" | "message_too_large" | "too_many_pending" | "rate_limited" | "server_full" | "too_many_connections" | "unauthorized" | "origin_refused" | "handshake_timeout" | "not_ready" | "shutting_down" | "internal";

/** Branch the session at the run's frame `run_frame`, by default the newest; answered by `forked`. */
export interface ForkMessage {
  readonly command: "fork";
  readonly type: "control";
  readonly run_frame?: number | null;
  readonly seq?: number | null;
}

/**
 * A branch is there to start from (`StartFrom.branch`), once or several times within `expires_s` seconds. It begins
 * with the picture of the run's frame `run_frame`. `seq`: of the `fork`.
 */
export interface ForkedMessage {
  readonly type: "forked";
  readonly expires_s: number;
  readonly run_frame: number;
  readonly seq: number | null;
  readonly ticket: string;
}

/**
 * One picture. A chunk of several pixel frames is several of these with one `chunk`.
 *
 * `index` rises by one per pixel frame over the whole session (a gap means the server dropped frames in favour of
 * newer ones); `chunk` counts likewise. `run` counts starts and rewinds; `run_frame` counts on from the picture the
 * run begins with, whose `kind` is "start": the last of its context (0), or the frame gone back to or branched from.
 * `applied_seq`: the newest act whose input is in this chunk (None before the first); `t_client_echo` is its
 * `t_client`. `end_of_chunk`: the chunk's last picture.
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

/** Ask for the input of every chunk of this run; answered by `action_log`. */
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
 * The first message, once. `encodings` in order of preference; `receipts` asks for a receipt per `act`. With
 * `resume`, pacing, start and receipts are those of the session that goes on.
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

/** What the server will take from this session. `timeline_frames`: how far back `rewind` and `fork` reach. */
export interface Limits {
  readonly max_image_bytes: number;
  readonly max_message_bytes: number;
  readonly max_pending_acts: number;
  readonly max_unacked_chunks: number;
  readonly timeline_frames?: number;
}

/** The same input for `num_chunks` chunks: `buttons` that were down, `axes` movement of each chunk. */
export interface LoggedInput {
  readonly axes: Readonly<Record<string, number>>;
  readonly buttons: ReadonlyArray<string>;
  readonly num_chunks: number;
}

/** Stop generating. Frames already generated may still arrive. */
export interface PauseMessage {
  readonly command: "pause";
  readonly type: "control";
  readonly seq?: number | null;
}

/** Go on generating after a pause. */
export interface PlayMessage {
  readonly command: "play";
  readonly type: "control";
  readonly seq?: number | null;
}

/** No slot is free: `position` 1 is next. `eta_s` is an estimate, or None where there is nothing to go by. */
export interface QueuedMessage {
  readonly type: "queued";
  readonly eta_s: number | null;
  readonly position: number;
}

/**
 * What became of the act or control `seq`: `received`, or `applied` at the frame `frame` (its first pixel frame).
 *
 * `about` says which of the two number series `seq` belongs to. A control is "applied" when it has taken effect;
 * `frame` is then the index the next generated frame will carry.
 */
export interface ReceiptMessage {
  readonly type: "receipt";
  readonly about: "act" | "control";
  readonly frame: number | null;
  readonly seq: number;
  readonly status: "received" | "applied";
}

/**
 * Go on with an earlier session: `ticket` is its `resume_ticket`, `last_frame` the newest frame that has arrived,
 * or None where nothing of it is on the screen any more.
 */
export interface Resume {
  readonly last_frame?: number | null;
  readonly ticket: string;
}

/**
 * Go back to the run's frame `run_frame` (a chunk's last, at most `limits.timeline_frames` ago) and go on from
 * there: a new run whose first picture is that frame.
 */
export interface RewindMessage {
  readonly command: "rewind";
  readonly type: "control";
  readonly run_frame: number;
  readonly seq?: number | null;
}

/** Ask for the session at the run's frame `run_frame`, by default the newest, as a file; answered by `saved`. */
export interface SaveMessage {
  readonly command: "save";
  readonly type: "control";
  readonly run_frame?: number | null;
  readonly seq?: number | null;
}

/**
 * The session as a file to start from (`StartFrom.state`), here or on another server of the same world, at any
 * time. It begins with the picture of the run's frame `run_frame`. `seq`: of the `save`.
 */
export interface SavedMessage {
  readonly type: "saved";
  readonly file: Uint8Array;
  readonly run_frame: number;
  readonly seq: number | null;
}

/** Change between real time (the world's own rate) and lock-step (one chunk per act, none dropped). */
export interface SetPacingMessage {
  readonly command: "pacing";
  readonly type: "control";
  readonly pacing: "realtime" | "lockstep";
  readonly seq?: number | null;
}

/** Real-time pacing at `speed` times the world's own rate; as fast as acks allow when `speed` is None. */
export interface SetSpeedMessage {
  readonly command: "speed";
  readonly type: "control";
  readonly seq?: number | null;
  readonly speed: number | null;
}

/** Restart in place: a new run from a start of the world or from a picture. */
export interface StartMessage {
  readonly command: "start";
  readonly type: "control";
  readonly seq?: number | null;
  readonly start?: StartFrom;
}

/**
 * Where a session starts: `index` of one of the world's starts, an `image` (PNG, JPEG, WebP or GIF; one that moves
 * is a clip that is gone on from, one that does not is held still), a `branch`: the ticket of a `forked` message,
 * which goes on from there, or a `state`: the `file` of a `saved` message.
 *
 * At most one of the four; with none, the world's first start. `seed` fixes the noise of everything generated after
 * (a branch and a state have their own: with the same input they make the same frames as what they branched from).
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
 * Where a frame's time went, in milliseconds: from sampling the action until it reached the socket's queue.
 *
 * `queue_ms`: from the arrival of the newest applied act until it was sampled. `step_ms`: the batched rollout step.
 * `decode_ms`: codec. `encode_ms`: picture encoding. `batch_size`: sessions that shared the step.
 */
export interface Timings {
  readonly batch_size: number;
  readonly decode_ms: number;
  readonly encode_ms: number;
  readonly queue_ms: number;
  readonly step_ms: number;
}

/**
 * What is usual for a figure of the world's pictures: its mean over stretches of two seconds, and how far it
 * usually strays from that (standard deviation).
 */
export interface Usual {
  readonly deviation: number;
  readonly mean: number;
}

/**
 * The answer to `hello` once the session has a slot. `resume_ticket` is None where resuming is not offered.
 *
 * `generation` counts how often the session has been resumed; then `last_seq` is the newest act that it has (-1 for
 * none): later ones were lost on the way.
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
 * A served world: what a player must know (also the items of `GET /v1/worlds`).
 *
 * `statistics`: of the world's real pictures, in grey levels (0 to 255): `brightness` (mean), `contrast` (standard
 * deviation), `sharpness` (mean difference of neighbouring pixels), `motion` (mean difference of successive
 * pictures); empty where the world does not say. `pixelated`: they are made of blocks, to be enlarged with hard edges.
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
  readonly title: string;
  readonly width: number;
}
