/** The scenario of the operator page. */

import { join } from "node:path";
import {
  DESKTOP,
  open,
  stats,
  until,
  untilFrames,
  untilApplied,
} from "./browser.mjs";

/** Shows the server on the operator page while a player plays, then without a connection, then with it again, and last
 * as if it compiled. */
export async function operator(browser, base, folder, seen) {
  const page = await open(browser, DESKTOP, base, seen.problems);
  const operatorProblems = [];
  const operatorPage = await open(browser, DESKTOP, `${base}operator.html`, operatorProblems);
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
  const shows = (id) => until(operatorPage, (id) => parseFloat(document.getElementById(id).textContent) > 0, id);
  await untilFrames(page, 10);
  await page.keyboard.press("ArrowUp");
  await untilApplied(page);
  for (const id of ["sessions", "sent", "p99"]) await shows(id);
  seen.playing = await operatorPage.evaluate(figures);
  await page.keyboard.press("ArrowDown");
  await untilFrames(page, (await stats(page)).framesPresented + 60);
  await operatorPage.screenshot({ path: join(folder, "operator.png"), fullPage: true });
  await operatorPage.emulateMedia({ colorScheme: "dark" });
  await operatorPage.screenshot({ path: join(folder, "operator-dark.png"), fullPage: true });
  await operatorPage.setViewportSize({ width: 360, height: 740 });
  await operatorPage.screenshot({ path: join(folder, "operator-narrow.png"), fullPage: true });
  seen.narrow = await operatorPage.evaluate(figures);
  seen.problems.push(...operatorProblems); // errors during the lost connection below are expected
  await operatorPage.context().setOffline(true);
  await until(operatorPage, () => document.querySelector("#state").dataset.state === "unreachable");
  seen.lost = await operatorPage.evaluate(figures);
  await operatorPage.screenshot({ path: join(folder, "operator-lost.png"), fullPage: true });
  await operatorPage.context().setOffline(false);
  await until(operatorPage, () => document.querySelector("#state").dataset.state === "ready");
  seen.back = await operatorPage.evaluate(figures);
  const progress = () => {
    const notice = document.querySelector("#compilation");
    return notice.hidden ? "" : notice.innerText;
  };
  seen.idle = await operatorPage.evaluate(progress);
  const compiling = { status: "ready", playing: 1, waiting: 0, compilation: "compiling 3 of 8" };
  await operatorPage.route("**/readyz", (route) => route.fulfill({ json: compiling }));
  await until(operatorPage, () => !document.querySelector("#compilation").hidden);
  seen.compiling = await operatorPage.evaluate(progress);
}
