/**
 * Helpers shared by the scenarios: devices, opening a page, and waiting for conditions. Knows no scenario.
 */

const TIMEOUT_MS = 60_000;
export const BROWSER_ARGS = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--use-fake-device-for-media-stream",
  "--use-fake-ui-for-media-stream",
];
/** Arguments that Playwright would add: pages are kept for going back to, as in the browser of a player. */
export const WITHHELD_ARGS = ["--disable-back-forward-cache"];

export const DESKTOP = { viewport: { width: 1280, height: 800 } };
export const PHONE = { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, hasTouch: true, isMobile: true };

export const stats = (page) => page.evaluate(() => ({ ...window.lightcone }));
export const canvas = (page) => page.evaluate(() => document.querySelector("canvas").toDataURL());
export const notice = (page) => page.locator("#notice").innerText();
export const until = (page, test, argument = null) => page.waitForFunction(test, argument, { timeout: TIMEOUT_MS });
export const untilState = (page, state) => until(page, (expected) => window.lightcone?.state === expected, state);
export const untilFrames = (page, count) => until(page, (expected) => window.lightcone?.framesPresented >= expected, count);
/** Waits until the frame on the screen reflects the newest act. */
export const untilApplied = (page) => until(page, () => window.lightcone.appliedSeq === window.lightcone.sentSeq);

/** Waits until no frame has been presented for `quietMs`. */
export async function untilQuiet(page, quietMs = 1000) {
  for (let before = -1, now = -2; before !== now; ) {
    before = (await stats(page)).framesPresented;
    await page.waitForTimeout(quietMs);
    now = (await stats(page)).framesPresented;
  }
}

/** Moves the timeline's slider to a position, as a pointer would. */
export const scrubTo = (page, position) =>
  page.locator("#scrub").evaluate((slider, position) => {
    slider.value = String(position);
    slider.dispatchEvent(new Event("input"));
  }, position);
/** Index of the focused stage, or -1. */
export const focusedStage = (page) => page.evaluate(() => [...document.querySelectorAll(".stage")].indexOf(document.activeElement));
/** The `image-rendering` of the picture. */
export const enlarged = (page) => page.locator("#stage canvas").evaluate((canvas) => getComputedStyle(canvas).imageRendering);
/** The text of the state. */
export const said = (page) => page.locator("#state").innerText();

/** Opens a page at `url` and collects its errors, and its requests to other hosts, in `problems`. */
export async function open(browser, device, url, problems) {
  const page = await (await browser.newContext(device)).newPage();
  page.setDefaultTimeout(TIMEOUT_MS);
  page.on("pageerror", (error) => problems.push(`page error: ${error.message}`));
  page.on("console", (message) => message.type() === "error" && problems.push(`console: ${message.text()}`));
  page.on("request", (request) => {
    const { origin, protocol } = new URL(request.url());
    const allowed = origin === new URL(url).origin || ["data:", "blob:"].includes(protocol);
    if (!allowed) problems.push(`request to another host: ${request.url()}`);
  });
  await page.goto(url);
  return page;
}


/** Plays for `frames` frames, with two keys held in turn. */
export async function playSome(page, frames) {
  await untilFrames(page, 5);
  for (const key of ["ArrowUp", "ArrowDown"]) {
    await page.keyboard.down(key);
    await untilFrames(page, (await stats(page)).framesPresented + frames / 2);
    await page.keyboard.up(key);
    await untilApplied(page);
  }
}

/** Pauses and waits until no frame arrives any more. */
export async function pause(page) {
  await page.click("#pause");
  await untilState(page, "paused");
  await untilQuiet(page);
}
