/**
 * The page: asks which worlds there are, lets the visitor play one, and wires controls and figures to it.
 *
 * Owns the choice of world and start. Everything it does, it does through `Player` and `View`.
 * `window.lightcone` shows the figures, read-only, to tests and scripts.
 */

import { LightconeError } from "../errors";
import { Player, type PlayerStats } from "../player";
import type { WorldInfo } from "../protocol";
import { Keyboard, buildPad, showHeld } from "./controls";
import { GamepadInput } from "./gamepad";
import "./style.css";
import "./layout.css";
import { View, sentence } from "./view";
import { loadWorlds } from "./worlds";

const HUD_MS = 250;
const MAX_SEED = 2 ** 31 - 1;
/** Pixels. */
const SMALL_PICTURE = 128 * 128;

const query = new URLSearchParams(location.search);
const view = new View();
let player: Player | null = null;
/** Of `?seed=`: the same start, seed and input give the same pictures. Without one, every start is new. */
let seed: number | null = null;

const keyboard = new Keyboard(() => player, {
  KeyP: () => view.pause.click(),
  Period: () => view.step.click(),
  KeyR: () => view.restart.click(),
  KeyN: () => view.nextStart.click(),
});
new GamepadInput(
  () => player?.world.buttons.map((button) => button.name) ?? [],
  () => player,
);

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

function play(world: WorldInfo): void {
  player?.close();
  view.showWorld(world);
  const options = { url: streamUrl(), encodings: encodings(world), start: { index: 0, seed } };
  player = new Player(world, view.canvas, options, {
    state: (state) => view.showState(state),
    buttons: (pressed) => showHeld(view.pad, pressed),
    refusal: (error) => view.toast(sentence(error.message)),
    goAway: (seconds, reason) => view.toast(`${sentence(reason)} The server closes in ${Math.round(seconds)} s.`),
    undecodable: (error) => view.toast(sentence(error.message)),
  });
  keyboard.bind(world);
  view.hintShortcuts((code) => keyboard.isBound(code));
  buildPad(view.pad, world, () => player);
  player.connect();
}

/** Runs `action` on a click; after a click with a pointer the keys belong to the world again. */
function onClick(button: HTMLButtonElement, action: () => void): void {
  button.addEventListener("click", (event) => {
    action();
    if (event.detail > 0) view.stage.focus({ preventScroll: true });
  });
}

function restart(index: number): void {
  if (!player) return;
  if (player.world.starts.length > 0) view.starts.value = String(index);
  player.restart({ index, seed });
}

const chosenStart = (): number => Math.max(0, view.starts.selectedIndex);

function wire(worlds: readonly WorldInfo[]): void {
  onClick(view.pause, () => player?.togglePause());
  onClick(view.step, () => player?.step());
  onClick(view.restart, () => restart(chosenStart()));
  onClick(view.nextStart, () => restart((chosenStart() + 1) % Math.max(1, view.starts.length)));
  view.starts.addEventListener("change", () => restart(chosenStart()));
  view.worlds.addEventListener("change", () => {
    const world = worlds.find(({ name }) => name === view.worlds.value);
    if (!world) return;
    query.set("world", world.name);
    history.replaceState(null, "", `?${query}`);
    play(world);
  });
  setInterval(() => player && view.showStats(player.stats), HUD_MS);
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
    get: () => player?.stats[key] ?? null,
  });
  const keys = ["fps", "actionToPhotonMs", "framesPresented", "lastFrameIndex", "runFrame", "appliedSeq", "sentSeq", "state"] as const;
  const stats = Object.defineProperties({}, Object.fromEntries(keys.map((key) => [key, figure(key)])));
  Object.defineProperty(window, "lightcone", { value: Object.freeze(stats), enumerable: true });
}

async function main(): Promise<void> {
  exposeStats();
  onClick(view.retry, () => {
    if (player?.client.state.name === "reconnecting") player.connect();
    else location.reload();
  });
  seed = parseSeed(query.get("seed"));
  const worlds = await loadWorlds((why) => view.showNotice({ title: "Waiting for the server", text: why }));
  view.showNotice(null);
  wire(worlds);
  const asked = query.get("world");
  const world = asked === null ? worlds[0] : worlds.find(({ name }) => name === asked);
  view.listWorlds(worlds, world?.name ?? "");
  if (world) return play(world);
  const names = worlds.map(({ name }) => name).join(", ");
  throw new LightconeError(`there is no world "${asked}" here; choose another above (${names})`);
}

main().catch((error: unknown) => {
  const reason = error instanceof LightconeError ? error : new LightconeError(String(error));
  view.showState({ name: "failed", reason });
  if (reason !== error) throw error;
});
