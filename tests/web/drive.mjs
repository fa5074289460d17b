/**
 * Runs one browser scenario in headless Chromium and prints what it observed as a JSON object.
 *
 *     node drive.mjs SCENARIO BASE_URL FOLDER CHROMIUM
 *
 * SCENARIO is the name of a function in scenarios/, with the suffix @phone to run it on a phone; screenshots are written
 * to FOLDER. Owns the command line and the browser; the Python tests check the observations.
 */

import { createRequire } from "node:module";
import { BROWSER_ARGS, DESKTOP, PHONE, WITHHELD_ARGS } from "./scenarios/browser.mjs";
import * as inputs from "./scenarios/inputs.mjs";
import * as lifecycle from "./scenarios/lifecycle.mjs";
import * as operator from "./scenarios/operator.mjs";
import * as play from "./scenarios/play.mjs";
import * as studio from "./scenarios/studio.mjs";

const require = createRequire(new URL("../../clients/web/package.json", import.meta.url));
const { chromium } = require("playwright-core");

const scenarios = { ...play, ...studio, ...operator, ...lifecycle, ...inputs };
const devices = { desktop: DESKTOP, phone: PHONE };
const [scenario, base, folder, executablePath] = process.argv.slice(2);
const [name, device = "desktop"] = scenario.split("@");
const browser = await chromium.launch({ executablePath, args: BROWSER_ARGS, ignoreDefaultArgs: WITHHELD_ARGS });
try {
  const seen = { problems: [] };
  await scenarios[name](browser, base, folder, seen, devices[device]);
  process.stdout.write(`${JSON.stringify(seen)}\n`);
} finally {
  await browser.close();
}
