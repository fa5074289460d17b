/**
 * Rebuilds the page into a temporary folder and compares it with the committed `dist/`, byte by byte. Prints the files
 * that differ and exits with code 1. (The hashes in `dist/build.json` allow the same check without Node.)
 */

import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const committed = join(here, "dist");
const rebuilt = mkdtempSync(join(tmpdir(), "lightcone-web-"));

const files = (root) =>
  readdirSync(root, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(root.length + 1));

try {
  const vite = join(here, "node_modules", "vite", "bin", "vite.js");
  execFileSync(process.execPath, [vite, "build", "--outDir", rebuilt, "--emptyOutDir", "--logLevel", "warn"], {
    cwd: here,
    stdio: "inherit",
  });
  const names = [...new Set([...files(committed), ...files(rebuilt)])].sort();
  const read = (root, name) => (files(root).includes(name) ? readFileSync(join(root, name)) : null);
  const stale = names.filter((name) => {
    const [before, after] = [read(committed, name), read(rebuilt, name)];
    return !before || !after || !before.equals(after);
  });
  if (stale.length > 0) {
    console.error(`clients/web/dist is stale (${stale.join(", ")}); run \`npm run build\` in clients/web and commit it`);
    process.exitCode = 1;
  } else {
    console.log("clients/web/dist is up to date");
  }
} finally {
  rmSync(rebuilt, { recursive: true });
}
