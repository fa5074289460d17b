/**
 * Plays the page in headless Chromium and reports what it saw, as one JSON object on standard output.
 *
 *     node drive.mjs SCENARIO BASE_URL FOLDER CHROMIUM
 *
 * SCENARIO is a function below, on a phone if it ends in @phone; screenshots go to FOLDER. Owns the browser; judges nothing: the tests do.
 */

import { readFileSync } from "node:fs";
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
  "--use-fake-device-for-media-stream",
  "--use-fake-ui-for-media-stream",
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

/** Moves the timeline's slider to a place, as a pointer would. */
const scrubTo = (page, place) =>
  page.locator("#scrub").evaluate((slider, place) => {
    slider.value = String(place);
    slider.dispatchEvent(new Event("input"));
  }, place);
/** Number of the stage that has the focus, from 0; -1 where none has. */
const focusedStage = (page) => page.evaluate(() => [...document.querySelectorAll(".stage")].indexOf(document.activeElement));
/** How the picture is enlarged. */
const enlarged = (page) => page.locator("#stage canvas").evaluate((canvas) => getComputedStyle(canvas).imageRendering);
/** The state as it is read out. */
const said = (page) => page.locator("#state").innerText();

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
  await page.locator("[data-world]").nth(1).click();
  seen.pressed = await page.locator('[data-world][aria-pressed="true"]').evaluateAll((all) => all.map((b) => b.dataset.world));
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
  await page.click("#pause");
  await untilFrames(page, seen.stepped.framesPresented + 3); // the rest of the chunk waits to be shown
  seen.live = await canvas(page);
  await scrubTo(page, 0);
  await page.waitForTimeout(150);
  seen.scrubbed = await canvas(page);
  await page.waitForTimeout(1000);
  seen.scrubbedLater = await canvas(page);
  await page.click("#pause");
  await untilFrames(page, (await stats(page)).framesPresented + 2 * 12);

  await page.evaluate(() => {
    document.querySelector("#branch").click();
    document.querySelector("[data-world]").click();
  });
  await untilFrames(page, 5);
  await page.waitForTimeout(1500); // a branch of the other world would be here by now
  seen.stagesAfterSwitch = await page.locator(".stage").count();
  seen.toastAfterSwitch = await page.locator("#toast").isVisible();
}

/** Some seconds of play with a key held now and then. */
async function playSome(page, frames) {
  await untilFrames(page, 5);
  for (const key of ["ArrowUp", "ArrowDown"]) {
    await page.keyboard.down(key);
    await untilFrames(page, (await stats(page)).framesPresented + frames / 2);
    await page.keyboard.up(key);
    await untilObeyed(page);
  }
}

async function pause(page) {
  await page.click("#pause");
  await untilState(page, "paused");
  await untilQuiet(page);
}

/** Goes back on the timeline, looks, and plays on from there. */
async function timeline(browser, base, folder, seen, device) {
  const page = await open(browser, device, base, seen.problems);
  await playSome(page, 40);
  await page.locator("#scrub").focus();
  const { sentSeq } = await stats(page);
  await page.keyboard.press("w");
  seen.sentFromSlider = (await stats(page)).sentSeq - sentSeq;
  for (let step = 0; step < 12; step += 1) await page.keyboard.press("ArrowLeft");
  await until(page, () => window.lightcone.scrubbedTo !== null);
  await untilQuiet(page);
  await page.waitForTimeout(300);
  seen.scrubbed = { ...(await stats(page)), canvas: await canvas(page), badge: await page.locator("#past").innerText() };
  seen.newest = Number(await page.locator("#scrub").getAttribute("max"));
  await page.screenshot({ path: join(folder, "timeline.png") });
  await page.keyboard.press("ArrowRight");
  await page.waitForTimeout(300);
  seen.oneLater = { ...(await stats(page)), canvas: await canvas(page) };
  await page.keyboard.press("ArrowLeft");
  await page.click("#from-here");
  await until(page, (run) => window.lightcone.state === "playing" && window.lightcone.run > run, seen.scrubbed.run);
  seen.after = { ...(await stats(page)), hidden: await page.locator("#past").isHidden() };
  await untilFrames(page, (await stats(page)).framesPresented + 10);
  seen.onward = await stats(page);
}

/** Branches, steers one branch, then both, and closes the second. */
async function branching(browser, base, folder, seen, device) {
  const page = await open(browser, device, base, seen.problems);
  await playSome(page, 20);
  const steered = () =>
    page.evaluate(() => [...document.querySelectorAll(".stage")].findIndex((stage) => stage.classList.contains("steered")));
  seen.before = await stats(page);
  await page.click("#branch");
  await page.locator(".stage").nth(1).waitFor();
  await until(page, (frame) => window.lightcone.state === "playing" && window.lightcone.runFrame > frame, seen.before.runFrame);
  await untilFrames(page, 10);
  await pause(page);
  seen.toolKeeps = { steered: await steered(), focus: await focusedStage(page), said: await said(page) };
  await scrubTo(page, 0);
  seen.oldest = (await stats(page)).scrubbedTo;
  seen.badgeOn = await page.evaluate(() => [...document.querySelectorAll(".stage")].indexOf(document.querySelector("#past").parentElement));
  await page.click("#pause");
  await untilState(page, "playing");
  const pictures = () => page.evaluate(() => [...document.querySelectorAll(".stage canvas")].map((c) => c.toDataURL()));
  const key = async () => {
    await page.keyboard.down("ArrowUp");
    await untilObeyed(page);
    await untilFrames(page, (await stats(page)).framesPresented + 10);
    await page.keyboard.up("ArrowUp");
  };
  await key();
  seen.branch = await stats(page);
  seen.pictures = await pictures();
  seen.steered = await page.locator(".stage.steered").count();
  await page.screenshot({ path: join(folder, "branching.png") });
  await page.click("#steer-both");
  seen.steeredBoth = await page.locator(".stage.steered").count();
  await key();
  await page.locator("#stage").click({ position: { x: 20, y: 60 } });
  await page.keyboard.press("Escape");
  seen.first = await stats(page);
  await page.click("#close-branch");
  seen.stages = await page.locator(".stage").count();
  seen.closed = { said: await said(page), disabled: await page.locator(".tools :disabled").count(), focus: await focusedStage(page) };
  await untilFrames(page, (await stats(page)).framesPresented + 5);
  seen.after = await stats(page);
}

/** Starts from a picture chosen as a file, then from what the (pretended) camera sees. */
async function upload(browser, base, folder, seen, device) {
  const page = await open(browser, device, base, seen.problems);
  await untilFrames(page, 5);
  await pause(page);
  const colour = () =>
    page.evaluate(() => {
      const { width, height } = document.querySelector("#screen");
      return [...document.querySelector("#screen").getContext("2d").getImageData(width / 2, height / 2, 1, 1).data];
    });
  const started = async (act) => {
    const { framesPresented } = await stats(page);
    await act();
    await until(page, (count) => window.lightcone.framesPresented > count && window.lightcone.runFrame === 0, framesPresented);
    return colour();
  };
  const picture = await page.evaluate(() => {
    const canvas = Object.assign(document.createElement("canvas"), { width: 900, height: 600 });
    const context = canvas.getContext("2d");
    context.fillStyle = "rgb(200, 60, 30)";
    context.fillRect(0, 0, 900, 600);
    return canvas.toDataURL("image/png").split(",")[1];
  });
  const file = { name: "red.png", mimeType: "image/png", buffer: Buffer.from(picture, "base64") };
  seen.fromFile = await started(() => page.setInputFiles("#picture-file", file));
  await page.screenshot({ path: join(folder, "upload.png") });
  const broken = { name: "broken.png", mimeType: "image/png", buffer: Buffer.from("no picture") };
  await page.setInputFiles("#picture-file", broken);
  await page.locator("#toast").waitFor({ state: "visible" });
  seen.refused = await page.locator("#toast").innerText();
  await page.click("#branch");
  await page.locator(".stage").nth(1).waitFor();
  await until(page, () => window.lightcone.runFrame !== null);
  await page.click("#copy-link");
  await until(page, () => location.hash.startsWith("#take="));
  await page.click("#close-branch");
  await page.context().grantPermissions(["camera"]);
  await page.evaluate(() => {
    window.cameras = [];
    const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
    navigator.mediaDevices.getUserMedia = async (wanted) => {
      window.cameras.push(await ask(wanted));
      return window.cameras.at(-1);
    };
    for (let click = 0; click < 2; click += 1) document.querySelector("#camera").click();
  });
  await page.locator("#camera-dialog[open]").waitFor();
  const { sentSeq } = await stats(page);
  await page.keyboard.press("w");
  seen.sentFromDialog = (await stats(page)).sentSeq - sentSeq;
  await page.waitForFunction(() => document.querySelector("#camera-video").videoWidth > 0);
  await page.waitForTimeout(700); // starts keep their distance
  await page.screenshot({ path: join(folder, "camera.png") });
  seen.fromCamera = await started(() => page.click("#camera-take"));
  seen.cameras = await page.evaluate(() => window.cameras.map((camera) => camera.active));
}

/** Records a clip and looks at the file. */
async function record(browser, base, folder, seen, device) {
  const page = await open(browser, device, base, seen.problems);
  await untilFrames(page, 5);
  await page.click("#record");
  await untilFrames(page, (await stats(page)).framesPresented + 45);
  seen.label = await page.locator("#record").innerText();
  await page.screenshot({ path: join(folder, "record.png") });
  const [download] = await Promise.all([page.waitForEvent("download"), page.click("#record")]);
  const path = join(folder, download.suggestedFilename());
  await download.saveAs(path);
  seen.name = download.suggestedFilename();
  const data = readFileSync(path);
  seen.bytes = data.length;
  seen.labelAfter = await page.locator("#record").innerText();
  await page.evaluate(() => delete CanvasCaptureMediaStreamTrack.prototype.requestFrame); // as in Firefox
  await page.click("#record");
  await untilFrames(page, (await stats(page)).framesPresented + 45);
  const [second] = await Promise.all([page.waitForEvent("download"), page.click("#record")]);
  await second.saveAs(join(folder, "without-requests.webm"));
  seen.bytesWithoutRequests = readFileSync(join(folder, "without-requests.webm")).length;
  const blank = await page.context().newPage(); // the page itself may play no videos
  seen.video = await blank.evaluate(async (base64) => {
    const video = document.createElement("video");
    video.src = URL.createObjectURL(new Blob([Uint8Array.from(atob(base64), (c) => c.charCodeAt(0))], { type: "video/webm" }));
    await new Promise((resolve, reject) => {
      video.onloadeddata = resolve;
      video.onerror = () => reject(new Error("the clip does not play"));
    });
    return { width: video.videoWidth, height: video.videoHeight };
  }, data.toString("base64"));
}

/** Plays, shares a link, opens it elsewhere, and opens the same take as a file. */
async function replay(browser, base, folder, seen, device) {
  const page = await open(browser, device, base, seen.problems);
  await playSome(page, 30);
  await pause(page);
  seen.original = { ...(await stats(page)), canvas: await canvas(page) };
  await page.click("#copy-link");
  await until(page, () => location.hash.startsWith("#take="));
  const link = page.url();
  seen.linkLength = link.length;
  const [download] = await Promise.all([page.waitForEvent("download"), page.click("#save-take")]);
  const file = join(folder, download.suggestedFilename());
  await download.saveAs(file);
  await page.close();

  const played = async (other) => {
    await until(other, () => window.lightcone.replay !== null);
    await until(other, (wanted) => window.lightcone.replay === null && window.lightcone.runFrame === wanted, seen.original.runFrame);
    await untilState(other, "paused");
    await untilQuiet(other);
    return { ...(await stats(other)), canvas: await canvas(other) };
  };
  const visitor = await open(browser, device, link, seen.problems);
  await until(visitor, () => window.lightcone.replay !== null && window.lightcone.replay[0] > 3);
  seen.words = await visitor.locator("#take-place").innerText();
  await visitor.screenshot({ path: join(folder, "replay.png") });
  seen.fromLink = await played(visitor);
  await visitor.click("#pause");
  await until(visitor, (frame) => window.lightcone.runFrame > frame + 5, seen.original.runFrame);
  seen.onward = await stats(visitor);
  await visitor.setInputFiles("#take-file", file);
  seen.fromFile = await played(visitor);
  await visitor.setInputFiles("#take-file", file);
  await until(visitor, () => window.lightcone.replay !== null && window.lightcone.replay[0] > 3);
  seen.saidInTake = await said(visitor);
  await visitor.click("#restart");
  await until(visitor, () => window.lightcone.run === 1 && window.lightcone.runFrame > 10);
  seen.restarted = await stats(visitor);
  await visitor.waitForTimeout(500);
  seen.restartedLater = await stats(visitor);
  await visitor.close();

  const broken = await open(browser, device, `${base}#take=nonsense`, []);
  await broken.locator("#notice").waitFor({ state: "visible" });
  seen.notice = await notice(broken);
  await broken.screenshot({ path: join(folder, "broken-link.png") });
  await broken.locator("[data-world]").first().click();
  await untilFrames(broken, 5);
  seen.wayOut = { address: new URL(broken.url()).hash, notice: await broken.locator("#notice").isVisible() };
}

/** Looks around with mouse and stick in a world that has an axis for it; changes the speed. */
async function look(browser, base, folder, seen) {
  const page = await open(browser, DESKTOP, base, seen.problems);
  await untilFrames(page, 3);
  seen.enlarged = [await enlarged(page)];
  await page.locator("[data-world]").nth(1).click();
  await untilState(page, "playing");
  await untilFrames(page, 5);
  seen.enlarged.push(await enlarged(page));
  const box = await page.locator("#stage").boundingBox();
  const [x, y] = [box.x + box.width / 2, box.y + box.height / 2];
  const drag = async (x, y) => {
    await page.mouse.move(x, y);
    await page.mouse.down();
    await page.mouse.move(x + 40, y, { steps: 4 });
    await page.mouse.up();
    await page.evaluate(() => document.exitPointerLock());
  };
  seen.before = await stats(page);
  await drag(x, y);
  await until(page, (sent) => window.lightcone.sentSeq > sent, seen.before.sentSeq);
  await untilObeyed(page);
  seen.after = await stats(page);
  await pause(page);
  seen.paused = await stats(page);
  await drag(x, y);
  await page.click("#pause");
  await untilFrames(page, seen.paused.framesPresented + 24);
  seen.lookedInVain = await stats(page);
  await page.selectOption("#speed", "0.25");
  await untilFrames(page, (await stats(page)).framesPresented + 3);
  await page.click("#branch");
  await page.locator(".stage").nth(1).waitFor();
  await untilFrames(page, 3);
  seen.speed = await page.locator("#speed").inputValue();
  const second = await page.locator(".stage").nth(1).boundingBox();
  await drag(second.x + second.width / 2, second.y + second.height / 2);
  await until(page, () => window.lightcone.sentSeq > 0);
  seen.hint = await page.locator("#look-hint").innerText();
  await page.screenshot({ path: join(folder, "look.png") });
}

/** Asks for a world that is not served. */
async function unknownWorld(browser, base, folder, seen) {
  const page = await open(browser, DESKTOP, `${base}?world=atlantis`, seen.problems);
  await page.locator("#notice").waitFor({ state: "visible" });
  await until(page, () => document.querySelector("#notice").textContent.includes("atlantis"));
  seen.notice = await notice(page);
  await page.screenshot({ path: join(folder, "unknown-world.png") });
  await page.locator("[data-world]").first().click();
  await untilFrames(page, 5);
}

/** With a branch: says on standard error when it plays and when it has lost the server; the caller ends and restarts it. */
async function reconnect(browser, base, folder, seen) {
  const page = await open(browser, DESKTOP, base, []);
  await untilFrames(page, 5);
  seen.before = await stats(page);
  await page.selectOption("#speed", "0.5");
  await page.click("#branch");
  await page.locator(".stage").nth(1).waitFor();
  await untilFrames(page, 3);
  process.stderr.write("playing\n");
  await untilState(page, "reconnecting");
  seen.notice = await notice(page);
  await page.screenshot({ path: join(folder, "reconnecting.png") });
  process.stderr.write("lost\n");
  await page.locator(".stage").nth(1).waitFor({ state: "detached" });
  seen.toast = await page.locator("#toast").innerText();
  await untilState(page, "playing");
  await untilFrames(page, (await stats(page)).framesPresented + 5);
  seen.after = await stats(page);
  seen.disabled = await page.locator(".tools :disabled").count();
  seen.speed = await page.locator("#speed").inputValue();
}

/** Watches the server on the operator's page while somebody plays; then the server is out of reach. */
async function operator(browser, base, folder, seen) {
  const page = await open(browser, DESKTOP, base, seen.problems);
  const watching = [];
  const watch = await open(browser, DESKTOP, `${base}operator.html`, watching);
  const figures = () => {
    const texts = (selector) => [...document.querySelectorAll(selector)].map((found) => found.textContent);
    return {
      said: document.querySelector("#state").innerText,
      stale: document.querySelector("#figures").dataset.stale,
      trouble: document.querySelector("#trouble").innerText,
      tiles: Object.fromEntries([...document.querySelectorAll(".value")].map(({ id, textContent }) => [id, textContent])),
      lines: texts(".line").length,
      ticks: texts("#ticks tbody tr:first-child > *"),
      decodes: texts("#decodes tbody tr:first-child > *"),
      admissions: texts("#admissions tbody tr:first-child > *"),
      sideways: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    };
  };
  const shows = (id) => until(watch, (id) => parseFloat(document.getElementById(id).textContent) > 0, id);
  await untilFrames(page, 10);
  await page.keyboard.press("ArrowUp");
  await untilObeyed(page);
  for (const id of ["sessions", "sent", "p99"]) await shows(id);
  seen.playing = await watch.evaluate(figures);
  await page.keyboard.press("ArrowDown");
  await untilFrames(page, (await stats(page)).framesPresented + 60);
  await watch.screenshot({ path: join(folder, "operator.png"), fullPage: true });
  await watch.emulateMedia({ colorScheme: "dark" });
  await watch.screenshot({ path: join(folder, "operator-dark.png"), fullPage: true });
  await watch.setViewportSize({ width: 360, height: 740 });
  await watch.screenshot({ path: join(folder, "operator-narrow.png"), fullPage: true });
  seen.narrow = await watch.evaluate(figures);
  seen.problems.push(...watching); // what the browser says of a lost connection later on is no problem
  await watch.context().setOffline(true);
  await until(watch, () => document.querySelector("#state").dataset.state === "unreachable");
  seen.lost = await watch.evaluate(figures);
  await watch.screenshot({ path: join(folder, "operator-lost.png"), fullPage: true });
  await watch.context().setOffline(false);
  await until(watch, () => document.querySelector("#state").dataset.state === "ready");
  seen.back = await watch.evaluate(figures);
}

const scenarios = {
  keyboard,
  pauseAndStep,
  sameStart,
  touch,
  gamepad,
  otherWorld,
  timeline,
  branching,
  upload,
  record,
  replay,
  look,
  unknownWorld,
  reconnect,
  operator,
};
const devices = { desktop: DESKTOP, phone: PHONE };
const [scenario, base, folder, executablePath] = process.argv.slice(2);
const [name, device = "desktop"] = scenario.split("@");
const browser = await chromium.launch({ executablePath, args: ARGS });
try {
  const seen = { problems: [] };
  await scenarios[name](browser, base, folder, seen, devices[device]);
  process.stdout.write(`${JSON.stringify(seen)}\n`);
} finally {
  await browser.close();
}
