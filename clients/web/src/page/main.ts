/**
 * The page: asks which worlds there are, lets the visitor play one, and wires controls and figures to it.
 *
 * Owns the choice of world, start and take. Everything it does, it does through `Player` and the parts of the page.
 * `window.lightcone` shows the figures, read-only, to tests and scripts.
 */

import type { ClientState } from "../client";
import { ConnectionLost, LightconeError, ServerRefusal } from "../errors";
import { Player, type PlayerOptions, type PlayerStats } from "../player";
import type { WorldInfo } from "../protocol";
import { strangers, type Take } from "../take";
import { Branches, makeStage, type Stage } from "./branches";
import { listWorlds, markWorld } from "./chooser";
import { Keyboard, buildPad, showHeld } from "./controls";
import { element } from "./dom";
import { GamepadInput } from "./gamepad";
import { Hud } from "./hud";
import { Look } from "./look";
import { Pictures } from "./pictures";
import "./style.css";
import "./studio.css";
import "./layout.css";
import { Takes, takeInAddress } from "./takes";
import { Transport } from "./transport";
import { View, refusalTitle, sentence } from "./view";
import { loadWorlds } from "./worlds";

const REFRESH_MS = 125;
const MAX_SEED = 2 ** 31 - 1;
/** Where the tab keeps the token that the visitor has entered; an address would end in logs. */
const TOKEN = "lightcone-token";
/** Pixels. */
const SMALL_PICTURE = 128 * 128;

const query = new URLSearchParams(location.search);
const view = new View();
const hud = new Hud();
const stages = element("stages", HTMLElement);
const branches = new Branches(stages, (steered) => onSteered(steered));
const transport = new Transport(() => branches.active);
/** Of `?seed=`: the same start, seed and input give the same pictures. Without one, every start is new. */
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
const pictures = new Pictures((image) => branches.active?.restart({ image, seed }), (error) => say(error.message));
const takes = new Takes(() => branches.active, (take) => openTake(take), say);

/** The stream's address, beside this page's own. */
function streamUrl(): string {
  const url = new URL("v1/stream", document.baseURI);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  url.search = url.hash = "";
  return url.href;
}

/** Small pictures are enlarged until JPEG's artefacts show, and cost nothing to send whole. */
function encodings(world: WorldInfo): string[] {
  return world.width * world.height <= SMALL_PICTURE ? ["png", "jpeg"] : ["jpeg"];
}

function makePlayer(world: WorldInfo, canvas: HTMLCanvasElement, options: Partial<PlayerOptions>): Player {
  const made: Player = new Player(
    world,
    canvas,
    { url: streamUrl(), encodings: encodings(world), token: sessionStorage.getItem(TOKEN) ?? "", ...options },
    {
      state: (state) => onState(made, state),
      buttons: (pressed) => showHeld(view.pad, pressed),
      refusal: (error) => say(error.message),
      goAway: (seconds, reason) => view.toast(`${sentence(reason)} The server closes in ${Math.round(seconds)} s.`),
      undecodable: (error) => say(error.message),
      presented: () => made === branches.active && takes.frame(),
      replayed: () => say("That was the take; press Play to go on from here"),
    },
  );
  return made;
}

/** A player's connection changes; the words and tools are those of the stage that is steered. */
function onState(player: Player, state: ClientState): void {
  if (player === branches.active) view.showState(state);
  if (state.name !== "failed") return;
  if (branches.isSecond(player)) branches.close();
  else markWorld(view.worlds, null);
  if (player !== branches.active) say(refusalTitle(state.reason) ?? state.reason.message);
}

/** Another stage is steered, or there are more or fewer. */
function onSteered({ element, player }: Stage): void {
  view.cover(element);
  view.showState(player.client.state);
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
  player.connect();
}

/** Another world; its name goes into the address, and a take that stood there leaves it. The keys belong to it now. */
function choose(world: WorldInfo): void {
  query.set("world", world.name);
  history.replaceState(null, "", `?${query}`);
  play(world);
  branches.focus();
}

function openTake(take: Take): void {
  const world = worlds.find(({ name }) => name === take.world);
  if (!world) throw new LightconeError(`this take is of the world "${take.world}", which is not served here`);
  const unknown = strangers(take, world);
  if (unknown.length > 0) throw new LightconeError(`this take uses ${unknown.join(", ")}, which ${world.title} does not have`);
  play(world, { take });
}

async function branch(): Promise<void> {
  const from = branches.active;
  if (!from) return;
  const forked = await from.branch();
  if (!branches.has(from)) return; // another world was chosen meanwhile
  const { element, canvas } = makeStage(from.world);
  const { image, client } = from;
  const player = makePlayer(from.world, canvas, { start: { branch: forked.ticket }, image, speed: client.speed });
  branches.add({ element, player });
  player.connect();
  if (from.stats.scrubbedTo !== null) await from.playFromHere();
}

/** Shows what `work` did, or says why it failed. That a connection was lost, its player's state says. */
function attempt(work: Promise<void> | undefined): void {
  work?.then(refreshAll, (error: unknown) => {
    if (!(error instanceof LightconeError)) throw error;
    if (!(error instanceof ConnectionLost)) say(error.message);
  });
}

/** Runs `action` on a click; after a click with a pointer the keys belong to the world again. */
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

function wire(): void {
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

/** Shows how the active player stands. */
function refreshAll(): void {
  const player = branches.active;
  if (!player) return;
  const { stats } = player;
  hud.show(stats);
  view.showFlow(stats.state, stats.fps, stats.replay);
  transport.refresh((stats.state === "playing" || stats.state === "paused") && stats.replay === null);
}

/** The seed that `?seed=` asks for, if it does. */
function parseSeed(text: string | null): number | null {
  if (text === null) return null;
  const value = Number(text);
  if (/^\d+$/.test(text) && value <= MAX_SEED) return value;
  throw new LightconeError(`"${text}" is not a seed; ?seed= takes a whole number from 0 to ${MAX_SEED}`);
}

/** Exposes the figures of whichever player is at the world, read-only. */
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

/** What the button of the notice says it does. */
function retry(): void {
  const player = branches.active;
  const state = player?.client.state;
  const code = state?.name === "failed" && state.reason instanceof ServerRefusal ? state.reason.code : null;
  if (code === "unauthorized") sessionStorage.setItem(TOKEN, prompt("The token you were given")?.trim() ?? "");
  const mayGoOn = state?.name === "reconnecting" || code === "idle" || code === "taken_over";
  if (player && mayGoOn) player.connect();
  else location.reload();
}

async function main(): Promise<void> {
  exposeStats();
  onClick(view.retry, retry);
  worlds = await loadWorlds((why) => view.showNotice({ title: "Waiting for the server", text: why }));
  view.showNotice(null);
  wire();
  listWorlds(view.worlds, worlds, choose);
  await begin().catch((error: unknown) => {
    if (!(error instanceof LightconeError)) throw error;
    if (seed === null) query.delete("seed"); // it is none
    view.showState({ name: "failed", reason: error });
    view.showNotice({ title: "Cannot play this address", text: `${sentence(error.message)} Choose a world above to go on.` });
  });
}

/** Plays what the address asks for. */
async function begin(): Promise<void> {
  seed = parseSeed(query.get("seed"));
  const take = await takeInAddress(location.hash);
  if (take) return openTake(take);
  const asked = query.get("world");
  const world = asked === null ? worlds[0] : worlds.find(({ name }) => name === asked);
  if (!world) throw new LightconeError(`there is no world "${asked}" here`);
  play(world);
}

main().catch((error: unknown) => {
  const reason = error instanceof LightconeError ? error : new LightconeError(String(error));
  view.showState({ name: "failed", reason });
  if (reason !== error) throw error;
});
