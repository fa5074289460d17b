/**
 * Plays the page in headless Chromium and reports what it saw, as one JSON object on standard output.
 *
 *     node drive.mjs SCENARIO BASE_URL FOLDER CHROMIUM
 *
 * SCENARIO is a function below; screenshots go to FOLDER. Owns the browser; judges nothing: test_browser.py does.
 */

import { createRequire } from "node:module";
import { join } from "node:path";

const require = createRequire(new URL("../../clients/web/package.json", import.meta.url));
const { chromium } = require("playwright-core");

const TIMEOUT_MS = 60_000;
const ARGS = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

const DESKTOP = { viewport: { width: 1280, height: 800 } };
const PHONE = { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, hasTouch: true, isMobile: true };

const stats = (page) => page.evaluate(() => ({ ...window.lightcone }));
const canvas = (page) => page.evaluate(() => document.querySelector("canvas").toDataURL());
const notice = (page) => page.locator("#notice").innerText();
const until = (page, test, argument = null) => page.waitForFunction(test, argument, { timeout: TIMEOUT_MS });
const untilState = (page, state) => until(page, (wanted) => window.lightcone?.state === wanted, state);
const untilFrames = (page, count) => until(page, (wanted) => window.lightcone?.framesPresented >= wanted, count);
/** Until the frame on the screen obeys the newest act. */
const untilObeyed = (page) => until(page, () => window.lightcone.appliedSeq === window.lightcone.sentSeq);

/** Until no frame has been presented for `quietMs`. */
async function untilQuiet(page, quietMs = 1000) {
  for (let before = -1, now = -2; before !== now; ) {
    before = (await stats(page)).framesPresented;
    await page.waitForTimeout(quietMs);
    now = (await stats(page)).framesPresented;
  }
}

/** A page at `url`, with everything that went wrong in it noted in `problems`. */
async function open(browser, device, url, problems) {
  const page = await (await browser.newContext(device)).newPage();
  page.setDefaultTimeout(TIMEOUT_MS);
  page.on("pageerror", (error) => problems.push(`page error: ${error.message}`));
  page.on("console", (message) => message.type() === "error" && problems.push(`console: ${message.text()}`));
  page.on("request", (request) => {
    const { origin, protocol } = new URL(request.url());
    const own = origin === new URL(url).origin || ["data:", "blob:"].includes(protocol);
    if (!own) problems.push(`request to elsewhere: ${request.url()}`);
  });
  await page.goto(url);
  return page;
}

/** Holds a key, lets go, loses the window's focus while holding. */
async function keyboard(browser, base, folder, seen) {
  const page = await open(browser, DESKTOP, base, seen.problems);
  await untilFrames(page, 10);
  seen.before = { ...(await stats(page)), canvas: await canvas(page) };
  await page.keyboard.down("ArrowUp");
  await until(page, (sent) => window.lightcone.sentSeq > sent, seen.before.sentSeq);
  seen.heldButtons = await page.locator('[data-button][data-held="true"]').evaluateAll((all) => all.map((b) => b.dataset.button));
  await untilObeyed(page);
  await untilFrames(page, (await stats(page)).framesPresented + 10);
  seen.holding = { ...(await stats(page)), canvas: await canvas(page) };
  await page.screenshot({ path: join(folder, "desktop.png") });
  await page.keyboard.up("ArrowUp");
  await untilObeyed(page);
  seen.released = await stats(page);
  await page.keyboard.down("KeyS");
  await page.evaluate(() => window.dispatchEvent(new Event("blur")));
  await untilObeyed(page);
  seen.blurred = { ...(await stats(page)), held: await page.locator('[data-held="true"]').count() };
  await page.waitForTimeout(1100);
  seen.later = await stats(page);
}

/** Pauses, steps by button and by key, plays on. */
async function pauseAndStep(browser, base, folder, seen) {
  const page = await open(browser, DESKTOP, base, seen.problems);
  await untilFrames(page, 5);
  await page.click("#pause");
  await untilState(page, "paused");
  await untilQuiet(page);
  seen.paused = await stats(page);
  await page.click("#step");
  await untilFrames(page, seen.paused.framesPresented + 1);
  await untilQuiet(page);
  seen.stepped = await stats(page);
  await page.keyboard.press(".");
  await untilFrames(page, seen.stepped.framesPresented + 1);
  await untilQuiet(page);
  seen.steppedByKey = await stats(page);
  await page.screenshot({ path: join(folder, "paused.png") });
  await page.keyboard.press("p");
  await untilState(page, "playing");
  await untilFrames(page, seen.steppedByKey.framesPresented + 5);
  seen.playing = await stats(page);
}

/** From one start and seed: the pictures after some single steps, twice without a key and once with one held. */
async function sameStart(browser, base, folder, seen) {
  const page = await open(browser, DESKTOP, `${base}?seed=7`, seen.problems);
  await untilFrames(page, 3);
  await page.click("#pause");
  await untilState(page, "paused");
  await untilQuiet(page);
  const run = async (key) => {
    await page.click("#restart");
    await until(page, () => window.lightcone.runFrame === 0);
    seen.runFrames.push((await stats(page)).runFrame);
    if (key) await page.keyboard.down(key);
    for (let step = 0; step < 6; step += 1) {
      const { framesPresented } = await stats(page);
      await page.click("#step");
      await untilFrames(page, framesPresented + 1);
    }
    if (key) await page.keyboard.up(key);
    seen.runFrames.push((await stats(page)).runFrame);
    return canvas(page);
  };
  seen.runFrames = [];
  seen.idle = await run(null);
  seen.idleAgain = await run(null);
  seen.up = await run("ArrowUp");
  seen.down = await run("ArrowDown");
  seen.starts = await page.locator("#start option").count();
  if (seen.starts > 1) {
    await page.click("#next-start");
    seen.chosenStart = await page.locator("#start").inputValue();
  }
}

/** A phone: the on-screen buttons under a finger. */
async function touch(browser, base, folder, seen) {
  const page = await open(browser, PHONE, base, seen.problems);
  await untilFrames(page, 5);
  const box = await page.locator("[data-button]").first().boundingBox();
  const finger = [{ x: box.x + box.width / 2, y: box.y + box.height / 2 }];
  const session = await page.context().newCDPSession(page);
  seen.before = await stats(page);
  await session.send("Input.dispatchTouchEvent", { type: "touchStart", touchPoints: finger });
  await until(page, (sent) => window.lightcone.sentSeq > sent, seen.before.sentSeq);
  seen.held = await page.locator('[data-held="true"]').evaluateAll((all) => all.map((b) => b.dataset.button));
  await untilObeyed(page);
  seen.holding = await stats(page);
  await page.screenshot({ path: join(folder, "phone.png") });
  await session.send("Input.dispatchTouchEvent", { type: "touchEnd", touchPoints: [] });
  await until(page, (sent) => window.lightcone.sentSeq > sent, seen.holding.sentSeq);
  await untilObeyed(page);
  seen.released = { ...(await stats(page)), held: await page.locator('[data-held="true"]').count() };
  seen.sidewaysScroll = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
}

/** A gamepad of the standard layout, plugged in and pressed by the script: d-pad up, then the left stick down. */
async function gamepad(browser, base, folder, seen) {
  const page = await open(browser, DESKTOP, base, seen.problems);
  await untilFrames(page, 5);
  const pad = async (pressed, stickY) => {
    const { sentSeq } = await stats(page);
    await page.evaluate(
      ([pressed, stickY]) => {
        const buttons = Array.from({ length: 17 }, (_, index) => ({ pressed: pressed.includes(index), value: 0 }));
        navigator.getGamepads = () => [null, { buttons, axes: [0, stickY, 0, 0] }];
        window.dispatchEvent(new Event("gamepadconnected"));
      },
      [pressed, stickY],
    );
    await until(page, (sent) => window.lightcone.sentSeq > sent, sentSeq);
    await untilObeyed(page);
    return page.locator('[data-held="true"]').evaluateAll((all) => all.map((b) => b.dataset.button));
  };
  seen.dpad = await pad([12], 0);
  seen.stick = await pad([], 0.9);
  seen.nothing = await pad([], 0.1);
}

/** Goes over to another world, whose steps give several pictures each, and steps once in it. */
async function otherWorld(browser, base, folder, seen) {
  const page = await open(browser, DESKTOP, base, seen.problems);
  await untilFrames(page, 3);
  seen.first = new URL(page.url()).searchParams.get("world");
  const other = await page.locator("#world option").nth(1).getAttribute("value");
  await page.selectOption("#world", other);
  await untilState(page, "playing");
  await untilFrames(page, 10);
  await page.click("#pause");
  await untilState(page, "paused");
  await untilQuiet(page, 1500);
  seen.address = new URL(page.url()).searchParams.get("world");
  seen.paused = await stats(page);
  await page.click("#step");
  await untilFrames(page, seen.paused.framesPresented + 1);
  await untilQuiet(page, 1500);
  seen.stepped = await stats(page);
  await page.screenshot({ path: join(folder, "other-world.png") });
}

/** Asks for a world that is not served. */
async function unknownWorld(browser, base, folder, seen) {
  const page = await open(browser, DESKTOP, `${base}?world=atlantis`, seen.problems);
  await page.locator("#notice").waitFor({ state: "visible" });
  await until(page, () => document.querySelector("#notice").textContent.includes("atlantis"));
  seen.notice = await notice(page);
  await page.screenshot({ path: join(folder, "unknown-world.png") });
}

/** Says on standard error when it plays and when it has lost the server; the caller ends and restarts the server. */
async function reconnect(browser, base, folder, seen) {
  const page = await open(browser, DESKTOP, base, []);
  await untilFrames(page, 5);
  seen.before = await stats(page);
  process.stderr.write("playing\n");
  await untilState(page, "reconnecting");
  seen.notice = await notice(page);
  await page.screenshot({ path: join(folder, "reconnecting.png") });
  process.stderr.write("lost\n");
  await untilState(page, "playing");
  await untilFrames(page, (await stats(page)).framesPresented + 5);
  seen.after = await stats(page);
}

const scenarios = { keyboard, pauseAndStep, sameStart, touch, gamepad, otherWorld, unknownWorld, reconnect };
const [name, base, folder, executablePath] = process.argv.slice(2);
const browser = await chromium.launch({ executablePath, args: ARGS });
try {
  const seen = { problems: [] };
  await scenarios[name](browser, base, folder, seen);
  process.stdout.write(`${JSON.stringify(seen)}\n`);
} finally {
  await browser.close();
}
