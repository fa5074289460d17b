/**
 * Vite plugin: writes `dist/build.json`, the SHA-256 hashes of all source files and all built files.
 *
 * With it the project's tests check without Node that the committed `dist/` was built from the committed sources. Owns
 * the list of source files. The hashes are of the bytes on disk.
 */

import { createHash } from "node:crypto";
import { readFileSync, readdirSync, statSync, writeFileSync } from "node:fs";
import { join, relative, resolve, sep } from "node:path";
import type { Plugin } from "vite";

/** Files and folders, relative to the project, that determine the output of `vite build`. */
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
