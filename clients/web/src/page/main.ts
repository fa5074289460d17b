/**
 * The page: loads the list of worlds, lets the visitor play one, and connects controls and figures to it.
 *
 * Owns the choice of world, start and take; `Player` and the parts of the page do the rest. `window.lightcone` exposes the
 * statistics, read-only, to tests and scripts.
 */

import type { ClientState } from "../client-types";
import { ConnectionLost, LightconeError, ServerRefusal } from "../errors";
import { Player } from "../player";
import type { PlayerOptions, PlayerStats } from "../player-types";
import type { WorldInfo } from "../protocol";
import { unknownInputs, type Take } from "../take";
import { AxisSliders } from "./axes";
import { Branches, makeStage, type Stage } from "./branches";
import { listWorlds, markWorld } from "./chooser";
import { Keyboard, buildPad, showHeld } from "./controls";
import { element } from "./dom";
import { GamepadInput } from "./gamepad";
import { HiddenPause } from "./hidden";
import { Hud } from "./hud";
import { Look } from "./look";
import { Pictures } from "./pictures";
import { keepSessions, optionsOf, takeSavedSessions, type SavedSession } from "./saved-sessions";
import "./style.css";
import "./studio.css";
import "./layout.css";
import { Takes, takeInAddress } from "./takes";
import { Transport } from "./transport";
import { View, lacksRoom, refusalTitle, sentence } from "./view";
import { loadWorlds } from "./worlds";

const REFRESH_MS = 125;
const MAX_SEED = 2 ** 31 - 1;
/** Key of the entered token in the session storage; in the address it would end up in logs. */
const TOKEN_KEY = "lightcone-token";
/** Pictures with at most this many pixels are sent as PNG. */
const MAX_PNG_PIXELS = 128 * 128;

const query = new URLSearchParams(location.search);
const view = new View();
const hud = new Hud();
const stages = element("stages", HTMLElement);
const branches = new Branches(stages, (steered) => onSteered(steered));
const transport = new Transport(() => branches.active);
/** The seed in `?seed=`: the same start, seed and input give the same pictures. Null for a new seed at every start. */
let seed: number | null = null;
let worlds: readonly WorldInfo[] = [];

const target = () => branches.target();
const say = (text: string): void => view.toast(sentence(text));
const keyboard = new Keyboard(target, {
  KeyP: () => view.pause.click(),
  Period: () => view.step.click(),
  KeyR: () => view.restart.click(),
  KeyN: () => view.nextStart.click(),
  KeyB: () => transport.branch.click(),
});
new GamepadInput(() => branches.active?.world ?? null, target);
const look = new Look(stages, target);
const sliders = new AxisSliders(element("axes", HTMLElement), target, () => branches.focus());
const pictures = new Pictures((image) => branches.active?.restart({ image, seed }), (error) => say(error.message));
const takes = new Takes(() => branches.active, (take) => openTake(take), say);

/** The stream's address, relative to this page. */
function streamUrl(): string {
  const url = new URL("v1/stream", document.baseURI);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  url.search = url.hash = "";
  return url.href;
}

/** Small pictures are sent as PNG: they are cheap to send, and enlarging them would show JPEG artefacts. */
function encodings(world: WorldInfo): string[] {
  return world.width * world.height <= MAX_PNG_PIXELS ? ["png", "jpeg"] : ["jpeg"];
}

function makePlayer(world: WorldInfo, canvas: HTMLCanvasElement, options: Partial<PlayerOptions>): Player {
  const player: Player = new Player(
    world,
    canvas,
    { url: streamUrl(), encodings: encodings(world), token: sessionStorage.getItem(TOKEN_KEY) ?? "", ...options },
    {
      state: (state) => onState(player, state),
      buttons: (pressed) => showHeld(view.pad, pressed),
      refusal: (error) => say(error.message),
      goAway: (seconds, reason) => view.toast(`${sentence(reason)} The server closes the connection in ${Math.round(seconds)} s.`),
      undecodable: (error) => say(error.message),
      presented: () => player === branches.active && takes.frame(),
      replayed: () => say("End of the take; press Play to continue from here"),
    },
  );
  return player;
}

/** Handles a change of a player's state; texts and tools show the state of the steered stage. */
function onState(player: Player, state: ClientState): void {
  if (player === branches.active) view.showState(state, branches.players.length > 1);
  if (state.name !== "failed") return;
  const { reason } = state;
  if (branches.isSecond(player)) branches.close();
  else markWorld(view.worlds, null);
  if (player !== branches.active) say(refusalTitle(reason) ?? reason.message);
}

/** Handles that another stage is steered, or that a stage was added or removed. */
function onSteered({ element, player }: Stage): void {
  view.moveOverlays(element);
  view.showState(player.client.state, branches.players.length > 1);
  refreshAll();
}

function play(world: WorldInfo, options: Partial<PlayerOptions> = { start: { index: 0, seed } }): void {
  view.showWorld(world);
  markWorld(view.worlds, world.name);
  hud.reset();
  const player = makePlayer(world, view.canvas, options);
  branches.reset({ element: view.stage, player });
  keyboard.bind(world);
  view.hintShortcuts((code) => keyboard.isBound(code));
  view.hintLook(look.bind(world));
  buildPad(view.pad, world, target);
  sliders.bind(world);
  player.connect();
}

/** Plays another world: sets its name in the address, removes a take from it, and focuses the stage. */
function choose(world: WorldInfo): void {
  query.set("world", world.name);
  history.replaceState(null, "", `?${query}`);
  play(world);
  branches.focus();
}

function openTake(take: Take): void {
  const world = worlds.find(({ name }) => name === take.world);
  if (!world) throw new LightconeError(`this take is of the world "${take.world}", which this server does not have`);
  const unknown = unknownInputs(take, world);
  if (unknown.length > 0) throw new LightconeError(`this take uses ${unknown.join(", ")}, which ${world.title} does not have`);
  play(world, { take });
}

/** Plays a branch beside the world. */
function playBeside(world: WorldInfo, options: Partial<PlayerOptions>): void {
  const { element, canvas } = makeStage(world);
  const player = makePlayer(world, canvas, options);
  branches.add({ element, player });
  player.connect();
}

async function branch(): Promise<void> {
  const original = branches.active;
  if (!original) return;
  const forked = await original.branch();
  if (!branches.has(original)) return; // another world was chosen meanwhile
  const { image, client } = original;
  playBeside(original.world, { start: { branch: forked.ticket }, image, speed: client.speed });
  if (original.stats.scrubbedTo !== null) await original.playFromHere();
}

/** Refreshes after `work`, or shows why it failed. The player's state already shows a lost connection. */
function attempt(work: Promise<void> | undefined): void {
  work?.then(refreshAll, (error: unknown) => {
    if (!(error instanceof LightconeError)) throw error;
    if (!(error instanceof ConnectionLost)) say(error.message);
  });
}

/** Runs `action` on a click; after a click with a pointer, focuses the stage again. */
function onClick(button: HTMLButtonElement, action: () => void): void {
  button.addEventListener("click", (event) => {
    action();
    refreshAll();
    if (event.detail > 0) branches.focus();
  });
}

function restart(index: number): void {
  const player = branches.active;
  if (!player) return;
  if (player.world.starts.length > 0) view.starts.value = String(index);
  player.restart({ index, seed });
}

const chosenStart = (): number => Math.max(0, view.starts.selectedIndex);

function connectControls(): void {
  onClick(view.pause, () => branches.active?.togglePause());
  onClick(view.step, () => branches.active?.step());
  onClick(view.restart, () => restart(chosenStart()));
  onClick(view.nextStart, () => restart((chosenStart() + 1) % Math.max(1, view.starts.length)));
  onClick(transport.fromHere, () => attempt(branches.active?.playFromHere()));
  onClick(transport.branch, () => attempt(branch()));
  onClick(view.upload, () => pictures.choose());
  onClick(view.camera, () => void pictures.openCamera());
  onClick(view.record, () => takes.toggleRecording());
  onClick(view.copyLink, () => takes.copyLink());
  onClick(view.saveTake, () => takes.save());
  onClick(view.openTake, () => takes.choose());
  onClick(view.takeOver, () => branches.active?.takeOver());
  view.starts.addEventListener("change", () => restart(chosenStart()));
  setInterval(refreshAll, REFRESH_MS);
}

/** Shows the active player's statistics. */
function refreshAll(): void {
  const player = branches.active;
  if (!player) return;
  const { stats } = player;
  hud.show(stats);
  view.showFlow(stats.state, stats.fps, stats.replay);
  transport.refresh((stats.state === "playing" || stats.state === "paused") && stats.replay === null);
}

/** The seed in `?seed=`, if there is one. @throws LightconeError if it is invalid. */
function parseSeed(text: string | null): number | null {
  if (text === null) return null;
  const value = Number(text);
  if (/^\d+$/.test(text) && value <= MAX_SEED) return value;
  throw new LightconeError(`"${text}" is not a seed; ?seed= takes a whole number from 0 to ${MAX_SEED}`);
}

/** Exposes the statistics of the active player as `window.lightcone`, read-only. */
function exposeStats(): void {
  const figure = <K extends keyof PlayerStats>(key: K): PropertyDescriptor => ({
    enumerable: true,
    get: () => branches.active?.stats[key] ?? null,
  });
  const keys = [
    "fps",
    "actionToPhotonMs",
    "framesPresented",
    "lastFrameIndex",
    "run",
    "runFrame",
    "appliedSeq",
    "sentSeq",
    "state",
    "drift",
    "scrubbedTo",
    "replay",
  ] as const;
  const stats = Object.defineProperties({}, Object.fromEntries(keys.map((key) => [key, figure(key)])));
  Object.defineProperty(window, "lightcone", { value: Object.freeze(stats), enumerable: true });
}

/** Makes room for the active session, which waits for it, at the cost of the one beside it. */
function makeRoom(state: ClientState): void {
  if (state.name === "queued" && state.returning) return branches.pauseOther();
  branches.closeOther();
  branches.active?.connect();
}

/** Handles the button of the notice. */
function retry(): void {
  const player = branches.active;
  const state = player?.client.state;
  if (state && branches.players.length > 1 && lacksRoom(state)) return makeRoom(state);
  const code = state?.name === "failed" && state.reason instanceof ServerRefusal ? state.reason.code : null;
  if (code === "unauthorized") sessionStorage.setItem(TOKEN_KEY, prompt("Enter your token")?.trim() ?? "");
  const canReconnect = state?.name === "reconnecting" || code === "idle" || code === "taken_over";
  if (player && canReconnect) player.connect();
  else location.reload();
}

async function main(): Promise<void> {
  exposeStats();
  onClick(view.retry, retry);
  worlds = await loadWorlds((reason) => view.showNotice({ title: "Waiting for the server", text: reason }));
  view.showNotice(null);
  connectControls();
  keepSessions(() => branches.players, new HiddenPause(() => branches.players));
  listWorlds(view.worlds, worlds, choose);
  await begin().catch((error: unknown) => {
    if (!(error instanceof LightconeError)) throw error;
    if (seed === null) query.delete("seed"); // it was invalid
    view.showState({ name: "failed", reason: error });
    view.showNotice({ title: "This address cannot be played", text: `${sentence(error.message)} Choose a world above.` });
  });
}

/** Plays the take or world in the address. */
async function begin(): Promise<void> {
  seed = parseSeed(query.get("seed"));
  const take = await takeInAddress(location.hash);
  if (take) return openTake(take);
  const [saved, beside] = takeSavedSessions();
  const requested = query.get("world") ?? saved?.world ?? worlds[0]?.name;
  const world = worlds.find(({ name }) => name === requested);
  if (!world) throw new LightconeError(`this server has no world "${requested}"`);
  if (saved?.world === world.name) takeBack(world, saved, beside);
  else play(world);
}

/** Plays the sessions that the page had before it was reloaded; new ones begin in place of those that have ended. */
function takeBack(world: WorldInfo, saved: SavedSession, beside: SavedSession | undefined): void {
  play(world, { start: { index: 0, seed }, ...optionsOf(saved) });
  if (beside?.world === world.name) playBeside(world, optionsOf(beside));
}

main().catch((error: unknown) => {
  const reason = error instanceof LightconeError ? error : new LightconeError(String(error));
  view.showState({ name: "failed", reason });
  if (reason !== error) throw error;
});
