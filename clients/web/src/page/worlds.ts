/**
 * Which worlds the server has, asked before anything else.
 *
 * Owns that request and its repetition. A server that is still warming up, or not there yet, is asked again.
 */

import { LightconeError } from "../errors";
import type { WorldInfo } from "../protocol";

const RETRY_MS = 1000;

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Why there is no answer yet: `response` is the server's 503, or null where it could not be reached. */
async function describe(response: Response | null): Promise<string> {
  if (!response) return "The server cannot be reached.";
  const body = await response.text();
  return body.includes('"failed"')
    ? "The server could not load its worlds; its log says why."
    : "The server is warming up.";
}

/** The served worlds. `waiting` is told why, each time the server has to be asked again. */
export async function loadWorlds(waiting: (why: string) => void): Promise<readonly WorldInfo[]> {
  for (;;) {
    const response = await fetch("v1/worlds", { cache: "no-store" }).catch((error: unknown) => {
      if (error instanceof TypeError) return null; // what fetch raises when no connection comes about
      throw error;
    });
    if (response?.ok) {
      const { worlds } = (await response.json()) as { worlds: readonly WorldInfo[] };
      if (worlds.length === 0) throw new LightconeError("this server serves no world; start it with one");
      return worlds;
    }
    if (response && response.status !== 503) {
      throw new LightconeError(`the server answered ${response.status} when asked for its worlds`);
    }
    waiting(await describe(response));
    await sleep(RETRY_MS);
  }
}
