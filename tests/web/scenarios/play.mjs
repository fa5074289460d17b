/** Scenarios of playing: keys, touch, gamepad, mouse, pause and step, other worlds, a lost server. */

import { join } from "node:path";
import {
  DESKTOP,
  PHONE,
  canvas,
  enlarged,
  notice,
  open,
  pause,
  scrubTo,
  stats,
  until,
  untilFrames,
  untilApplied,
  untilQuiet,
  untilState,
} from "./browser.mjs";

/** Holds a key, releases it, and loses the window's focus while holding another. */
export async function keyboard(browser, base, folder, seen) {
  const page = await open(browser, DESKTOP, base, seen.problems);
  await untilFrames(page, 10);
  seen.before = { ...(await stats(page)), canvas: await canvas(page) };
  await page.keyboard.down("ArrowUp");
  await until(page, (sent) => window.lightcone.sentSeq > sent, seen.before.sentSeq);
  seen.heldButtons = await page.locator('[data-button][data-held="true"]').evaluateAll((all) => all.map((b) => b.dataset.button));
  await untilApplied(page);
  await untilFrames(page, (await stats(page)).framesPresented + 10);
  seen.holding = { ...(await stats(page)), canvas: await canvas(page) };
  await page.screenshot({ path: join(folder, "desktop.png") });
  await page.keyboard.up("ArrowUp");
  await untilApplied(page);
  seen.released = await stats(page);
  await page.keyboard.down("KeyS");
  await page.evaluate(() => window.dispatchEvent(new Event("blur")));
  await untilApplied(page);
  seen.blurred = { ...(await stats(page)), held: await page.locator('[data-held="true"]').count() };
  await untilFrames(page, seen.blurred.framesPresented + 20);
  seen.later = await stats(page);
}

/** Pauses, steps by button and by key, and continues. */
export async function pauseAndStep(browser, base, folder, seen) {
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

/** From one start and seed, takes single steps: twice without a key, then with each of two keys held. */
export async function sameStart(browser, base, folder, seen) {
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

/** Holds an on-screen button with a finger, on a phone. */
export async function touch(browser, base, folder, seen) {
  const page = await open(browser, PHONE, base, seen.problems);
  await untilFrames(page, 5);
  const box = await page.locator("[data-button]").first().boundingBox();
  const finger = [{ x: box.x + box.width / 2, y: box.y + box.height / 2 }];
  const session = await page.context().newCDPSession(page);
  seen.before = await stats(page);
  await session.send("Input.dispatchTouchEvent", { type: "touchStart", touchPoints: finger });
  await until(page, (sent) => window.lightcone.sentSeq > sent, seen.before.sentSeq);
  seen.held = await page.locator('[data-held="true"]').evaluateAll((all) => all.map((b) => b.dataset.button));
  await untilApplied(page);
  seen.holding = await stats(page);
  await page.screenshot({ path: join(folder, "phone.png") });
  await session.send("Input.dispatchTouchEvent", { type: "touchEnd", touchPoints: [] });
  await until(page, (sent) => window.lightcone.sentSeq > sent, seen.holding.sentSeq);
  await untilApplied(page);
  seen.released = { ...(await stats(page)), held: await page.locator('[data-held="true"]').count() };
  seen.sidewaysScroll = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
}

/** Simulates a gamepad of the standard layout: d-pad up, then the left stick down, then almost centred. */
export async function gamepad(browser, base, folder, seen) {
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
    await untilApplied(page);
    return page.locator('[data-held="true"]').evaluateAll((all) => all.map((b) => b.dataset.button));
  };
  seen.dpad = await pad([12], 0);
  seen.stick = await pad([], 0.9);
  seen.nothing = await pad([], 0.1);
}

/** Switches to a world with several pictures per step, steps once, scrubs during a chunk, and switches while branching. */
export async function otherWorld(browser, base, folder, seen) {
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
  await untilFrames(page, seen.stepped.framesPresented + 3); // the rest of the chunk is still to be shown
  seen.live = await canvas(page);
  await scrubTo(page, 0);
  await until(page, (live) => document.querySelector("canvas").toDataURL() !== live, seen.live);
  seen.scrubbed = await canvas(page);
  await page.waitForTimeout(1000); // nothing may be drawn over the past frame
  seen.scrubbedLater = await canvas(page);
  await page.click("#pause");
  await untilFrames(page, (await stats(page)).framesPresented + 2 * 12);

  await page.evaluate(() => {
    document.querySelector("#branch").click();
    document.querySelector("[data-world]").click();
  });
  await untilFrames(page, 5);
  await page.waitForTimeout(1500); // long enough for a branch of the other world to appear
  seen.stagesAfterSwitch = await page.locator(".stage").count();
  seen.toastAfterSwitch = await page.locator("#toast").isVisible();
}

/** Looks around with the mouse, in a world with an axis for it; changes the speed and branches. */
export async function look(browser, base, folder, seen) {
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
  await untilApplied(page);
  seen.after = await stats(page);
  await pause(page);
  seen.paused = await stats(page);
  await drag(x, y);
  await page.click("#pause");
  await untilFrames(page, seen.paused.framesPresented + 24);
  seen.lookedWhilePaused = await stats(page);
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

/** Opens the address of a world that is not served. */
export async function unknownWorld(browser, base, folder, seen) {
  const page = await open(browser, DESKTOP, `${base}?world=atlantis`, seen.problems);
  await page.locator("#notice").waitFor({ state: "visible" });
  await until(page, () => document.querySelector("#notice").textContent.includes("atlantis"));
  seen.notice = await notice(page);
  await page.screenshot({ path: join(folder, "unknown-world.png") });
  await page.locator("[data-world]").first().click();
  await untilFrames(page, 5);
}

/** Plays two branches, and reports on standard error when it plays and when the server is lost; the caller kills and restarts it. */
export async function reconnect(browser, base, folder, seen) {
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
