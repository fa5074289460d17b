/** Scenarios of input: keys whose release the browser does not report, and axes that the mouse does not move. */

import { createRequire } from "node:module";
import { join } from "node:path";
import { DESKTOP, open, stats, until, untilApplied, untilFrames, untilState } from "./browser.mjs";

const require = createRequire(new URL("../../../clients/web/package.json", import.meta.url));
const { decode } = require("@msgpack/msgpack");

const held = (page) => page.locator('[data-held="true"]').evaluateAll((all) => all.map((b) => b.dataset.button));

/** Holds a key, then does what makes the browser swallow its keyup; after each, no button may be held. */
export async function lostKeyups(browser, base, folder, seen) {
  const page = await open(browser, DESKTOP, base, seen.problems);
  await untilFrames(page, 3);
  const keyboard = page.locator("#stage");
  const key = (type, code, flags = {}) => keyboard.dispatchEvent(type, { code, bubbles: true, ...flags });
  const see = (state) =>
    page.evaluate((state) => {
      Object.defineProperty(document, "visibilityState", { value: state, configurable: true });
      document.dispatchEvent(new Event("visibilitychange"));
    }, state);
  const causes = {
    metaDown: () => key("keydown", "MetaLeft", { metaKey: true }),
    metaUp: () => key("keyup", "MetaRight"),
    menu: () => keyboard.dispatchEvent("contextmenu", { bubbles: true }),
    hidden: () => see("hidden"),
    blur: () => page.evaluate(() => window.dispatchEvent(new Event("blur"))),
  };
  seen.held = {};
  for (const [name, cause] of Object.entries(causes)) {
    await key("keydown", "ArrowUp");
    const during = await held(page);
    await cause();
    seen.held[name] = [during, await held(page)];
  }
  seen.hidden = (await stats(page)).state;
  await see("visible");
  seen.shown = (await stats(page)).state;
  await key("keydown", "ArrowUp");
  await key("keydown", "AltRight", { altKey: true, ctrlKey: true });
  await key("keyup", "ArrowUp", { altKey: true, ctrlKey: true });
  seen.altGraph = await held(page);
  await untilApplied(page);
}

/** Moves an axis with its slider, by the pointer and by keys, and with a gamepad. */
export async function axes(browser, base, folder, seen) {
  const acts = [];
  const page = await open(browser, DESKTOP, "about:blank", []);
  page.on("websocket", (socket) =>
    socket.on("framesent", ({ payload }) => {
      const message = decode(payload);
      if (message.type === "act") acts.push(message.axes);
    }),
  );
  page.on("pageerror", (error) => seen.problems.push(error.message));
  await page.goto(base);
  await untilFrames(page, 3);
  const moved = async (name) => {
    const from = acts.length;
    const { sentSeq } = await stats(page);
    await until(page, (sent) => window.lightcone.sentSeq > sent + 5, sentSeq);
    const values = acts.slice(from).map((axes) => axes[name] ?? 0);
    return [Math.min(...values), Math.max(...values)];
  };
  const settled = async () => {
    await page.waitForTimeout(300);
    const { sentSeq } = await stats(page);
    await page.waitForTimeout(300);
    return (await stats(page)).sentSeq === sentSeq;
  };
  seen.sliders = await page.locator("[data-axis]").evaluateAll((all) => all.map((input) => input.parentElement.textContent));
  const slider = page.locator('[data-axis="axis1"]');
  await slider.scrollIntoViewIfNeeded();
  const box = await slider.boundingBox();
  await page.mouse.move(box.x + box.width * 0.9, box.y + box.height / 2);
  await page.mouse.down();
  seen.dragged = await moved("axis1");
  await page.screenshot({ path: join(folder, "axes.png") });
  await page.mouse.up();
  seen.quietAfterDrag = await settled();
  seen.restAfterDrag = await slider.inputValue();
  await slider.focus();
  await page.keyboard.press("Home");
  seen.byKeys = await moved("axis1");
  await page.locator("#stage").focus();
  seen.quietAfterKeys = await settled();
  await page.evaluate(() => {
    navigator.getGamepads = () => [{ buttons: [], axes: [0, 0, 0, -1] }];
    window.dispatchEvent(new Event("gamepadconnected"));
  });
  seen.byStick = await moved("axis3");
  await page.evaluate(() => (navigator.getGamepads = () => [{ buttons: [], axes: [0, 0, 0, 0] }]));
  seen.quietAfterStick = await settled();
  await page.click("#pause");
  await untilState(page, "paused");
  const from = acts.length;
  await slider.focus();
  await page.keyboard.press("End");
  await page.evaluate(() => document.querySelector("#step").click());
  await until(page, () => window.lightcone.appliedSeq === window.lightcone.sentSeq);
  seen.stepped = acts.slice(from).map((axes) => axes.axis1);
}
