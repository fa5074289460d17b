/**
 * Loads the list of the server's worlds.
 *
 * Owns that request and its retries, while the server is warming up or cannot be reached.
 */

import { LightconeError } from "../errors";
import type { WorldInfo } from "../protocol";

const RETRY_MS = 1000;

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Describes why there is no list yet. `response`: the server's 503, or null if it could not be reached. */
async function describe(response: Response | null): Promise<string> {
  if (!response) return "The server cannot be reached.";
  const body = await response.text();
  return body.includes('"failed"')
    ? "The server could not load its worlds; see its log."
    : "The server is warming up.";
}

/** Returns the served worlds. `waiting` is called with the reason before each retry. */
export async function loadWorlds(waiting: (reason: string) => void): Promise<readonly WorldInfo[]> {
  for (;;) {
    const response = await fetch("v1/worlds", { cache: "no-store" }).catch((error: unknown) => {
      if (error instanceof TypeError) return null; // thrown by fetch if the connection fails
      throw error;
    });
    if (response?.ok) {
      const { worlds } = (await response.json()) as { worlds: readonly WorldInfo[] };
      if (worlds.length === 0) throw new LightconeError("this server has no worlds; start it with at least one");
      return worlds;
    }
    if (response && response.status !== 503) {
      throw new LightconeError(`the server answered the request for its worlds with status ${response.status}`);
    }
    waiting(await describe(response));
    await sleep(RETRY_MS);
  }
}
