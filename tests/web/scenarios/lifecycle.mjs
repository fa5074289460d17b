/** Scenarios of a session's life: reloading and closing the page, coming back from a pause, a branch without a slot. */

import { DESKTOP, notice, open, stats, until, untilFrames, untilState } from "./browser.mjs";

const numPlaying = async (base) => {
  const { playing, waiting } = await (await fetch(new URL("readyz", base))).json();
  return [playing, waiting];
};

/** Waits until the server counts these many players, with and without a slot. */
async function untilPlaying(base, playing, waiting) {
  for (let now = []; now[0] !== playing || now[1] !== waiting; now = await numPlaying(base)) {
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** Reloads a page while it plays with a key held, while it is paused, and with two branches; others wait for the slots. */
export async function reload(browser, base, folder, seen) {
  const page = await open(browser, DESKTOP, base, seen.problems);
  await untilFrames(page, 30);
  await page.click("#branch");
  await page.locator(".stage").nth(1).waitFor();
  await untilFrames(page, 5);
  await page.locator(".stage").first().click();
  const waiting = await open(browser, DESKTOP, base, seen.problems);
  await untilState(waiting, "queued");
  await page.keyboard.down("ArrowUp");
  await until(page, () => window.lightcone.appliedSeq === window.lightcone.sentSeq && window.lightcone.sentSeq > 0);
  seen.before = { ...(await stats(page)), stored: await page.evaluate(() => sessionStorage.length) };
  await page.reload();
  await page.keyboard.up("ArrowUp");
  await page.locator(".stage").nth(1).waitFor();
  await page.locator(".stage").first().click();
  await untilFrames(page, 5);
  await until(page, () => window.lightcone.appliedSeq === window.lightcone.sentSeq);
  seen.after = { ...(await stats(page)), stored: await page.evaluate(() => sessionStorage.length) };
  seen.playing = await numPlaying(base);
  await page.click("#pause");
  await untilState(page, "paused");
  await page.reload();
  await page.locator(".stage").nth(1).waitFor();
  await page.locator(".stage").first().click();
  await untilFrames(page, 1);
  seen.paused = { ...(await stats(page)), playing: await numPlaying(base) };
  seen.waiting = (await stats(waiting)).state;
}

/** Closes a page that has the only slot while another page waits, then reopens its address, and goes elsewhere and back. */
export async function close(browser, base, folder, seen) {
  const page = await open(browser, DESKTOP, base, seen.problems);
  await untilFrames(page, 3);
  const waiting = await open(browser, DESKTOP, base, seen.problems);
  await untilState(waiting, "queued");
  seen.notice = await notice(waiting);
  await page.close();
  await untilFrames(waiting, 20);
  seen.playing = await numPlaying(base);
  seen.runFrames = [];
  seen.kept = [];
  for (const elsewhere of ["about:blank", new URL("operator.html", base).href]) {
    const { runFrame } = await stats(waiting);
    await waiting.evaluate(() => {
      window.addEventListener("pageshow", ({ persisted }) => sessionStorage.setItem("kept", String(persisted)));
    });
    await waiting.goto(elsewhere);
    await untilPlaying(base, 0, 0);
    await waiting.goBack({ waitUntil: "commit" });
    await untilFrames(waiting, 3);
    seen.runFrames.push([runFrame, (await stats(waiting)).runFrame]);
    seen.kept.push(await waiting.evaluate(() => sessionStorage.getItem("kept")));
  }
}

/** Branches where there is no slot for a second session, and ends the first one to make room. */
export async function branchWithoutSlot(browser, base, folder, seen) {
  const page = await open(browser, DESKTOP, base, seen.problems);
  await untilFrames(page, 20);
  await page.click("#branch");
  await untilState(page, "queued");
  seen.notice = await notice(page);
  seen.stages = [await page.locator(".stage").count()];
  const { runFrame } = await stats(page);
  await page.click("#notice-retry");
  await untilState(page, "playing");
  await untilFrames(page, 5);
  seen.stages.push(await page.locator(".stage").count());
  seen.runFrames = [runFrame, (await stats(page)).runFrame];
  seen.playing = await numPlaying(base);
  await page.locator("[data-world]").first().dispatchEvent("click"); // the first stage, which has ended, is shown again
  await untilFrames(page, 3);
  seen.stages.push(await page.locator(".stage").count());
  seen.shown = await page.locator("#stage").isVisible();
}

/** Pauses in a server that has time for one player, comes back while another page plays, and gets the time when it closes. */
export async function comeBack(browser, base, folder, seen) {
  const page = await open(browser, DESKTOP, base, seen.problems);
  await untilFrames(page, 3);
  await page.click("#pause");
  await untilState(page, "paused");
  const other = await open(browser, DESKTOP, base, seen.problems);
  await untilFrames(other, 3);
  await page.bringToFront();
  await page.click("#pause");
  await untilState(page, "queued");
  seen.notice = await notice(page);
  const { framesPresented } = await stats(page);
  await other.close();
  await untilState(page, "playing");
  await untilFrames(page, framesPresented + 3);
}

/** Branches in a server that has time for one player; each of the two worlds plays while the other is paused. */
export async function takeTurns(browser, base, folder, seen) {
  const page = await open(browser, DESKTOP, base, seen.problems);
  await untilFrames(page, 5);
  await page.click("#branch");
  await untilState(page, "queued");
  await page.locator(".stage").first().click();
  await page.click("#pause");
  await untilState(page, "paused");
  await page.locator(".stage").nth(1).click();
  await untilState(page, "playing");
  await untilFrames(page, 5);
  await page.locator(".stage").first().click();
  await page.click("#pause");
  await untilState(page, "queued");
  seen.notice = await notice(page);
  const { framesPresented } = await stats(page);
  await page.click("#notice-retry");
  await untilState(page, "playing");
  await untilFrames(page, framesPresented + 5);
  await page.locator(".stage").nth(1).click();
  seen.other = (await stats(page)).state;
  seen.stages = await page.locator(".stage").count();
}
