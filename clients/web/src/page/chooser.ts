/**
 * The worlds as cards, each with a moving preview that the server has made of it.
 *
 * Owns the cards. A preview that is not made yet is asked for again; a world without one shows its name alone.
 */

import type { WorldInfo } from "../protocol";

const RETRY_MS = 1500;
const MOST_TRIES = 20;

/** Fills `nav` with the worlds to choose from. */
export function listWorlds(nav: HTMLElement, worlds: readonly WorldInfo[], choose: (world: WorldInfo) => void): void {
  nav.replaceChildren(...worlds.map((world) => card(world, () => choose(world))));
  markWorld(nav, null);
}

/** Shows which world is played, or that none is. There is no choice where the only world is. */
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
  keepAsking(picture, `v1/worlds/${encodeURIComponent(world.name)}/preview`);
  const name = document.createElement("span");
  name.textContent = world.title;
  button.append(picture, name);
  button.addEventListener("click", choose);
  return button;
}

function keepAsking(picture: HTMLImageElement, address: string): void {
  let tries = 0;
  const ask = async (): Promise<void> => {
    tries += 1;
    const response = await fetch(address).catch(() => null);
    if (response?.ok) {
      picture.src = URL.createObjectURL(await response.blob());
    } else if (tries < MOST_TRIES && (!response || response.status === 503)) {
      setTimeout(() => void ask(), RETRY_MS);
    }
  };
  void ask();
}
