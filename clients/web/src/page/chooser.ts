/**
 * The worlds as cards, each with a moving preview that the server has made of it.
 *
 * Owns the cards. A preview that is not made yet is asked for again; a world without one shows its name alone.
 */

import type { WorldInfo } from "../protocol";

const RETRY_MS = 1500;
const MOST_TRIES = 20;

/** Fills `nav`; it stays hidden where there is one world and it is chosen. */
export function listWorlds(
  nav: HTMLElement,
  worlds: readonly WorldInfo[],
  chosen: string,
  choose: (world: WorldInfo) => void,
): void {
  nav.hidden = worlds.length < 2 && worlds[0]?.name === chosen;
  nav.replaceChildren(...worlds.map((world) => card(world, () => choose(world))));
  markWorld(nav, chosen);
}

/** Shows which world is played. */
export function markWorld(nav: HTMLElement, chosen: string): void {
  for (const button of nav.querySelectorAll<HTMLElement>("[data-world]")) {
    button.setAttribute("aria-pressed", String(button.dataset["world"] === chosen));
  }
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
