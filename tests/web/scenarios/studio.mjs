/** Scenarios of the studio: timeline, branches, starting from pictures, clips and takes. */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import {
  canvas,
  focusedStage,
  notice,
  open,
  pause,
  playSome,
  said,
  scrubTo,
  stats,
  until,
  untilFrames,
  untilApplied,
  untilQuiet,
  untilState,
} from "./browser.mjs";

/** Goes back on the timeline, shows two past frames, and plays from one of them. */
export async function timeline(browser, base, folder, seen, device) {
  const page = await open(browser, device, base, seen.problems);
  await playSome(page, 40);
  await page.locator("#scrub").focus();
  const { sentSeq } = await stats(page);
  await page.keyboard.press("w");
  seen.sentFromSlider = (await stats(page)).sentSeq - sentSeq;
  for (let step = 0; step < 12; step += 1) await page.keyboard.press("ArrowLeft");
  await until(page, () => window.lightcone.scrubbedTo !== null);
  await untilQuiet(page);
  seen.scrubbed = { ...(await stats(page)), canvas: await canvas(page), badge: await page.locator("#past").innerText() };
  seen.newest = Number(await page.locator("#scrub").getAttribute("max"));
  await page.screenshot({ path: join(folder, "timeline.png") });
  await page.keyboard.press("ArrowRight");
  await until(page, (before) => document.querySelector("canvas").toDataURL() !== before, seen.scrubbed.canvas);
  seen.oneLater = { ...(await stats(page)), canvas: await canvas(page) };
  await page.keyboard.press("ArrowLeft");
  await page.click("#from-here");
  await until(page, (run) => window.lightcone.state === "playing" && window.lightcone.run > run, seen.scrubbed.run);
  seen.after = { ...(await stats(page)), hidden: await page.locator("#past").isHidden() };
  await untilFrames(page, (await stats(page)).framesPresented + 10);
  seen.continued = await stats(page);
}

/** Branches, steers the branch, then both stages, and closes the branch. */
export async function branching(browser, base, folder, seen, device) {
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
    await untilApplied(page);
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

/** Starts from a picture file, then from a still of Chromium's fake camera. */
export async function upload(browser, base, folder, seen, device) {
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
  seen.rejected = await page.locator("#toast").innerText();
  await page.click("#branch");
  await page.locator(".stage").nth(1).waitFor();
  await until(page, () => window.lightcone.runFrame !== null);
  await page.click("#copy-link");
  await until(page, () => location.hash.startsWith("#take="));
  await page.click("#close-branch");
  await page.context().grantPermissions(["camera"]);
  await page.evaluate(() => {
    window.cameras = [];
    const getUserMedia = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
    navigator.mediaDevices.getUserMedia = async (constraints) => {
      window.cameras.push(await getUserMedia(constraints));
      return window.cameras.at(-1);
    };
    for (let click = 0; click < 2; click += 1) document.querySelector("#camera").click();
  });
  await page.locator("#camera-dialog[open]").waitFor();
  const { sentSeq } = await stats(page);
  await page.keyboard.press("w");
  seen.sentFromDialog = (await stats(page)).sentSeq - sentSeq;
  await page.waitForFunction(() => document.querySelector("#camera-video").videoWidth > 0);
  await page.screenshot({ path: join(folder, "camera.png") });
  seen.fromCamera = await started(() => page.click("#camera-take"));
  seen.cameras = await page.evaluate(() => window.cameras.map((camera) => camera.active));
}

/** Records a clip and plays the file, with and without `requestFrame`. */
export async function record(browser, base, folder, seen, device) {
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
  await page.evaluate(() => delete CanvasCaptureMediaStreamTrack.prototype.requestFrame); // Firefox lacks it
  await page.click("#record");
  await untilFrames(page, (await stats(page)).framesPresented + 45);
  const [second] = await Promise.all([page.waitForEvent("download"), page.click("#record")]);
  await second.saveAs(join(folder, "without-requests.webm"));
  seen.bytesWithoutRequests = readFileSync(join(folder, "without-requests.webm")).length;
  const blank = await page.context().newPage(); // the page's content security policy allows no videos
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

/** Plays, copies a link, opens it on another page, and opens the same take as a file. */
export async function replay(browser, base, folder, seen, device) {
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
    await until(other, (expected) => window.lightcone.replay === null && window.lightcone.runFrame === expected, seen.original.runFrame);
    await untilState(other, "paused");
    await untilQuiet(other);
    return { ...(await stats(other)), canvas: await canvas(other) };
  };
  const visitor = await open(browser, device, link, seen.problems);
  await until(visitor, () => window.lightcone.replay !== null && window.lightcone.replay[0] > 3);
  seen.progress = await visitor.locator("#take-place").innerText();
  await visitor.screenshot({ path: join(folder, "replay.png") });
  seen.fromLink = await played(visitor);
  await visitor.click("#pause");
  await until(visitor, (frame) => window.lightcone.runFrame > frame + 5, seen.original.runFrame);
  seen.continued = await stats(visitor);
  await visitor.setInputFiles("#take-file", file);
  seen.fromFile = await played(visitor);
  await visitor.setInputFiles("#take-file", file);
  await until(visitor, () => window.lightcone.replay !== null && window.lightcone.replay[0] > 3);
  seen.stateDuringTake = await said(visitor);
  await visitor.click("#restart");
  await until(visitor, () => window.lightcone.run === 1 && window.lightcone.runFrame > 10);
  seen.restarted = await stats(visitor);
  await until(visitor, (frame) => window.lightcone.runFrame > frame + 15, seen.restarted.runFrame);
  seen.restartedLater = await stats(visitor);
  await visitor.close();

  const broken = await open(browser, device, `${base}#take=nonsense`, []);
  await broken.locator("#notice").waitFor({ state: "visible" });
  seen.notice = await notice(broken);
  await broken.screenshot({ path: join(folder, "broken-link.png") });
  await broken.locator("[data-world]").first().click();
  await untilFrames(broken, 5);
  seen.recovered = { address: new URL(broken.url()).hash, notice: await broken.locator("#notice").isVisible() };
}
