/**
 * The page: asks which worlds there are, lets the visitor play one, and wires controls and figures to it.
 *
 * Owns the choice of world, start and take. Everything it does, it does through `Player` and the parts of the page.
 * `window.lightcone` shows the figures, read-only, to tests and scripts.
 */

import { LightconeError } from "../errors";
import { Player, type PlayerOptions, type PlayerStats } from "../player";
import type { WorldInfo } from "../protocol";
import type { Take } from "../take";
import { strangers } from "../take";
import { Branches } from "./branches";
import { listWorlds, markWorld } from "./chooser";
import { Keyboard, buildPad, showHeld } from "./controls";
import { GamepadInput } from "./gamepad";
import { Hud } from "./hud";
import { Look } from "./look";
import { Pictures } from "./pictures";
import "./style.css";
import "./studio.css";
import "./layout.css";
import { Takes, takeInAddress } from "./takes";
import { Transport } from "./transport";
import { View, element, sentence } from "./view";
import { loadWorlds } from "./worlds";

const REFRESH_MS = 125;
const MAX_SEED = 2 ** 31 - 1;
/** Pixels. */
const SMALL_PICTURE = 128 * 128;

const query = new URLSearchParams(location.search);
const view = new View();
const hud = new Hud();
const branches = new Branches(element("stages", HTMLElement), () => refreshAll());
const transport = new Transport(() => branches.active);
/** Of `?seed=`: the same start, seed and input give the same pictures. Without one, every start is new. */
let seed: number | null = null;
/** What the run began with, where that was a picture. */
let image: Uint8Array | null = null;
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
const look = new Look(view.stage, target);
const pictures = new Pictures((picture) => startFromPicture(picture), (error) => say(error.message));
const takes = new Takes(() => branches.active, () => image, (take) => openTake(take), say);

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
    { url: streamUrl(), encodings: encodings(world), ...options },
    {
      state: (state) => {
        if (made === branches.active || !branches.isSplit) view.showState(state);
        if (state.name === "failed" && branches.isSplit && made === branches.active) {
          branches.close();
          say(state.reason.message);
        }
      },
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

function play(world: WorldInfo, options: Partial<PlayerOptions> = { start: { index: 0, seed } }): void {
  image = options.take && "image" in options.take.start ? options.take.start.image : null;
  view.showWorld(world);
  markWorld(view.worlds, world.name);
  hud.reset();
  transport.reset();
  const player = makePlayer(world, view.canvas, options);
  branches.reset({ element: view.stage, player });
  keyboard.bind(world);
  view.hintShortcuts((code) => keyboard.isBound(code));
  view.hintLook(look.bind(world));
  buildPad(view.pad, world, target);
  player.connect();
}

/** Another world; its name goes into the address, and a take that stood there leaves it. */
function choose(world: WorldInfo): void {
  query.set("world", world.name);
  history.replaceState(null, "", `?${query}`);
  play(world);
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
  const { forked, earlier } = await from.branch();
  const stage = document.createElement("div");
  stage.className = "stage";
  stage.tabIndex = 0;
  const canvas = document.createElement("canvas");
  canvas.width = from.world.width;
  canvas.height = from.world.height;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `A branch of ${from.world.title}`);
  stage.append(canvas);
  if (from.stats.scrubbedTo !== null) from.playFromHere();
  const player = makePlayer(from.world, canvas, { start: { branch: forked.ticket }, earlier });
  branches.add({ element: stage, player });
  player.connect();
}

/** Runs `action` on a click; after a click with a pointer the keys belong to the world again. */
function onClick(button: HTMLButtonElement, action: () => void): void {
  button.addEventListener("click", (event) => {
    action();
    refreshAll();
    if (event.detail > 0) view.stage.focus({ preventScroll: true });
  });
}

function restart(index: number): void {
  const player = branches.active;
  if (!player) return;
  if (player.world.starts.length > 0) view.starts.value = String(index);
  image = null;
  player.restart({ index, seed });
}

function startFromPicture(picture: Uint8Array): void {
  image = picture;
  branches.active?.restart({ image: picture, seed });
}

const chosenStart = (): number => Math.max(0, view.starts.selectedIndex);

function wire(): void {
  onClick(view.pause, () => branches.active?.togglePause());
  onClick(view.step, () => branches.active?.step());
  onClick(view.restart, () => restart(chosenStart()));
  onClick(view.nextStart, () => restart((chosenStart() + 1) % Math.max(1, view.starts.length)));
  onClick(transport.fromHere, () => branches.active?.playFromHere());
  onClick(transport.branch, () => {
    branch().catch((error: unknown) => {
      if (!(error instanceof LightconeError)) throw error;
      say(error.message);
    });
  });
  onClick(view.upload, () => pictures.choose());
  onClick(view.camera, () => void pictures.openCamera());
  onClick(view.record, () => takes.toggleRecording());
  onClick(view.copyLink, () => takes.copyLink());
  onClick(view.saveTake, () => takes.save());
  onClick(view.openTake, () => takes.choose());
  onClick(view.takeOver, () => branches.active?.takeOver());
  view.starts.addEventListener("change", () => restart(chosenStart()));
  view.stage.addEventListener("pointerdown", () => branches.steerFirst());
  view.stage.addEventListener("focusin", () => branches.steerFirst());
  setInterval(refreshAll, REFRESH_MS);
}

/** Shows how the active player stands. */
function refreshAll(): void {
  const player = branches.active;
  if (!player) return;
  const { stats } = player;
  hud.show(stats);
  view.showFlow(stats.state, stats.fps);
  view.showReplay(stats.replay);
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

async function main(): Promise<void> {
  exposeStats();
  onClick(view.retry, () => {
    if (branches.active?.client.state.name === "reconnecting") branches.active.connect();
    else location.reload();
  });
  seed = parseSeed(query.get("seed"));
  const take = await takeInAddress(location.hash);
  worlds = await loadWorlds((why) => view.showNotice({ title: "Waiting for the server", text: why }));
  view.showNotice(null);
  wire();
  const asked = take?.world ?? query.get("world");
  const world = asked === null ? worlds[0] : worlds.find(({ name }) => name === asked);
  listWorlds(view.worlds, worlds, world?.name ?? "", choose);
  if (take && world) return openTake(take);
  if (world) return play(world);
  const names = worlds.map(({ name }) => name).join(", ");
  throw new LightconeError(`there is no world "${asked}" here; choose another above (${names})`);
}

main().catch((error: unknown) => {
  const reason = error instanceof LightconeError ? error : new LightconeError(String(error));
  view.showState({ name: "failed", reason });
  if (reason !== error) throw error;
});
