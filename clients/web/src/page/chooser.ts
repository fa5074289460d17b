/**
 * The world chooser: one card per world, with an animated preview rendered by the server.
 *
 * Owns the cards. A preview that is not ready yet is requested again; a world without a preview shows only its name.
 */

import type { WorldInfo } from "../protocol";

const RETRY_MS = 1500;
const MAX_TRIES = 20;

/** Fills `nav` with one card per world. */
export function listWorlds(nav: HTMLElement, worlds: readonly WorldInfo[], choose: (world: WorldInfo) => void): void {
  nav.replaceChildren(...worlds.map((world) => card(world, () => choose(world))));
  markWorld(nav, null);
}

/** Marks the world that is played, if any. The chooser is hidden while the only world is played. */
export function markWorld(nav: HTMLElement, played: string | null): void {
  const buttons = nav.querySelectorAll<HTMLElement>("[data-world]");
  for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset["world"] === played));
  nav.hidden = buttons.length < 2 && played !== null;
}

function card(world: WorldInfo, choose: () => void): HTMLButtonElement {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "world";
  button.dataset["world"] = world.name;
  const picture = document.createElement("img");
  picture.alt = "";
  picture.width = 96;
  picture.height = 60;
  loadPreview(picture, `v1/worlds/${encodeURIComponent(world.name)}/preview`);
  const name = document.createElement("span");
  name.textContent = world.title;
  button.append(picture, name);
  button.addEventListener("click", choose);
  return button;
}

function loadPreview(picture: HTMLImageElement, address: string): void {
  let tries = 0;
  const load = async (): Promise<void> => {
    tries += 1;
    const response = await fetch(address).catch(() => null);
    if (response?.ok) {
      picture.src = URL.createObjectURL(await response.blob());
    } else if (tries < MAX_TRIES && (!response || response.status === 503)) {
      setTimeout(() => void load(), RETRY_MS);
    }
  };
  void load();
}
