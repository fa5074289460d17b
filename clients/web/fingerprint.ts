/**
 * Vite plugin: writes `dist/build.json`, the SHA-256 of every file the built page was made from and of every file built.
 *
 * With it anyone can tell without Node whether the committed `dist/` belongs to the committed sources (the project's
 * tests do). Owns the list of what counts as a source; the hashes are of the bytes as they are on disk.
 */

import { createHash } from "node:crypto";
import { readFileSync, readdirSync, statSync, writeFileSync } from "node:fs";
import { join, relative, resolve, sep } from "node:path";
import type { Plugin } from "vite";

/** Files and folders, relative to the project, that decide what `vite build` writes. */
export const SOURCES = [
  "fingerprint.ts",
  "index.html",
  "operator.html",
  "package-lock.json",
  "package.json",
  "src",
  "tsconfig.json",
  "vite.config.ts",
];

const RECORD = "build.json";

function filesUnder(path: string): string[] {
  if (!statSync(path).isDirectory()) return [path];
  return readdirSync(path).flatMap((name) => filesUnder(join(path, name)));
}

function hashes(root: string, entries: readonly string[]): Record<string, string> {
  const files = entries.flatMap((entry) => filesUnder(join(root, entry))).sort();
  return Object.fromEntries(
    files.map((file) => {
      const digest = createHash("sha256").update(readFileSync(file)).digest("hex");
      return [relative(root, file).split(sep).join("/"), digest];
    }),
  );
}

export function fingerprint(): Plugin {
  let root = "";
  let out = "";
  return {
    name: "fingerprint",
    apply: "build",
    configResolved(config) {
      root = config.root;
      out = resolve(config.root, config.build.outDir);
    },
    closeBundle() {
      const built = readdirSync(out).filter((name) => name !== RECORD);
      const record = { sources: hashes(root, SOURCES), built: hashes(out, built) };
      writeFileSync(join(out, RECORD), `${JSON.stringify(record, null, 2)}\n`);
    },
  };
}
