/**
 * The operator's page: asks the running server once a second how it is, and shows it.
 *
 * Owns the asking and the elements of operator.html. What the figures are is `figures.ts`'s.
 */

import { LightconeError } from "../errors";
import { parseMetrics, type Scrape } from "../metrics";
import { element, milliseconds } from "./dom";
import { Recorder, type Figures, type Latency, type Tally, type Timing } from "./figures";
import { Sparkline } from "./sparkline";
import "./style.css";
import "./operator.css";

const ASK_MS = 1000;
/** A server that takes as long for an answer is as good as gone. */
const PATIENCE_MS = 5000;

/** Of `/readyz`, and of what may come in its place. */
type Status = "ready" | "loading" | "draining" | "failed" | "unreachable";

const WORDS: Readonly<Record<Status, string>> = {
  ready: "Ready",
  loading: "Loading",
  draining: "Draining",
  failed: "Failed",
  unreachable: "Unreachable",
};

const MEANING: Readonly<Record<Status, string>> = {
  ready: "",
  loading: "The worlds are being loaded and warmed; nobody can play yet.",
  draining: "The server is about to stop; nobody can join any more.",
  failed: "Nobody can play: the worlds could not be loaded, or the server met an error. Its log says why.",
  unreachable: "The server cannot be reached.",
};

interface Tile {
  readonly id: string;
  readonly read: (figures: Figures) => number | null;
  readonly write: (value: number, figures: Figures) => string;
  /** What stands below; the largest value of the last minute, by default. */
  readonly note?: (figures: Figures) => string;
}

const TILES: readonly Tile[] = [
  { id: "sessions", read: ({ sessions }) => sessions, write: String },
  { id: "queue", read: ({ queue }) => queue, write: String },
  { id: "parked", read: ({ parked }) => parked, write: String },
  { id: "batch", read: ({ batch }) => batch, write: rate },
  { id: "sent", read: ({ sent }) => sent, write: rate },
  { id: "replaced", read: ({ replaced }) => replaced, write: rate },
  {
    id: "p50",
    read: ({ actionToFrame }) => actionToFrame?.p50.ms ?? null,
    write: (ms, { actionToFrame }) => latency({ ms, beyond: actionToFrame?.p50.beyond === true }),
    note: ({ actionToFrame }) => `of ${rate(actionToFrame?.perSecond ?? 0)} acts a second`,
  },
  {
    id: "p99",
    read: ({ actionToFrame }) => actionToFrame?.p99.ms ?? null,
    write: (ms, { actionToFrame }) => latency({ ms, beyond: actionToFrame?.p99.beyond === true }),
  },
];

const recorder = new Recorder();
const lines = new Map(TILES.map(({ id }) => [id, new Sparkline()]));
let readAt: Date | null = null;

/** What the server answered; null where it did not. */
async function ask(path: string): Promise<Response | null> {
  const asked = fetch(path, { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
  return asked.catch((error: unknown) => {
    if (error instanceof TypeError || error instanceof DOMException) return null; // no connection, or no answer in time
    throw error;
  });
}

/** A proxy in front may answer for a server that is not there, in words of its own. */
async function askStatus(): Promise<Status> {
  const answer = await ask("readyz");
  const { status } = ((await answer?.json().catch(() => null)) ?? {}) as { status?: Status };
  return status !== undefined && Object.hasOwn(WORDS, status) ? status : "unreachable";
}

/** The figures as they stand, or why there are none. */
async function askMetrics(): Promise<Scrape | string> {
  const answer = await ask("metrics");
  if (!answer?.ok) return answer ? `The server keeps its figures to itself: /metrics answered ${answer.status}.` : "";
  try {
    return parseMetrics(await answer.text(), performance.now());
  } catch (error) {
    if (error instanceof LightconeError) return `What /metrics answered cannot be read: ${error.message}.`;
    if (error instanceof TypeError || error instanceof DOMException) return ""; // it broke off
    throw error;
  }
}

async function refresh(): Promise<void> {
  const [status, metrics] = await Promise.all([askStatus(), askMetrics()]);
  const known = status !== "unreachable" && typeof metrics !== "string";
  if (known) {
    show(recorder.read(metrics), metrics.at);
    readAt = new Date();
  } else {
    for (const line of lines.values()) line.push(performance.now(), null);
  }
  const trouble = MEANING[status] || (typeof metrics === "string" ? metrics || MEANING.unreachable : "");
  const age = known || !readAt ? "" : ` The figures are from ${readAt.toLocaleTimeString()}.`;
  showState(status, trouble + age, !known);
}

function showState(status: Status, trouble: string, stale: boolean): void {
  const pill = element("state", HTMLElement);
  pill.dataset["state"] = status;
  write(pill.querySelector("span"), WORDS[status]); // it is read out, so only when it changes
  const notice = element("trouble", HTMLElement);
  notice.hidden = trouble === "";
  write(notice, trouble);
  element("figures", HTMLElement).dataset["stale"] = String(stale);
  document.title = `${WORDS[status]} · Lightcone operator`;
}

function show(figures: Figures, at: number): void {
  for (const tile of TILES) showTile(tile, figures, at);
  const timed = ({ labels, perSecond, p50, p99 }: Timing, ...names: string[]): string[] => {
    return [...names.map((name) => labels[name] ?? ""), rate(perSecond), latency(p50), latency(p99)];
  };
  fill("ticks", figures.ticks.map((timing) => timed(timing, "world", "batch")), "No ticks");
  fill("decodes", figures.decodes.map((timing) => timed(timing, "world")), "Nothing decoded");
  fill("admissions", figures.admissions.map(counted), "None yet");
  fill("refusals", figures.refusals.map(counted), "None yet");
  fill("resumes", figures.resumes.map(counted), "None yet");
}

function showTile(tile: Tile, figures: Figures, at: number): void {
  const value = tile.read(figures);
  const words = value === null ? "–" : tile.write(value, figures);
  const line = lines.get(tile.id);
  line?.push(at, value, words);
  write(element(tile.id, HTMLElement), words);
  const peak = line?.largest ?? null;
  write(element(`${tile.id}-note`, HTMLElement), tile.note?.(figures) ?? (peak === null ? "" : `peak ${peak}`));
}

function counted({ label, lately, total }: Tally): string[] {
  return [label, lately === null ? "–" : String(lately), String(total)];
}

function latency({ ms, beyond }: Latency): string {
  return beyond ? `> ${milliseconds(ms)}` : milliseconds(ms);
}

function rate(value: number): string {
  return value.toFixed(1);
}

/** The rows of a table's body; their cells stay where they are, so that a selection survives the next second. */
function fill(id: string, rows: readonly string[][], nothing: string): void {
  const [body] = element(id, HTMLTableElement).tBodies;
  if (!body) throw new TypeError(`the table "${id}" has no body`);
  const columns = element(id, HTMLTableElement).tHead?.rows[0]?.cells.length ?? 1;
  const shown = rows.length > 0 ? rows : [[nothing]];
  while (body.rows.length > shown.length) body.deleteRow(-1);
  shown.forEach((cells, index) => {
    const row = body.rows[index] ?? body.insertRow();
    if (row.cells.length !== cells.length) row.replaceChildren(...cells.map((_, column) => cell(column === 0 && cells.length > 1)));
    cells.forEach((text, column) => write(row.cells[column] ?? null, text));
    const [first] = row.cells;
    if (first && cells.length === 1) first.colSpan = columns;
  });
}

function cell(names: boolean): HTMLElement {
  const made = document.createElement(names ? "th" : "td");
  if (names) made.setAttribute("scope", "row");
  return made;
}

function write(place: Element | null, words: string): void {
  if (place && place.textContent !== words) place.textContent = words;
}

/** Asks again and again, a second from question to question; not while nobody looks. */
async function keepAsking(): Promise<never> {
  for (;;) {
    const next = performance.now() + ASK_MS;
    if (document.visibilityState === "visible") await refresh();
    await new Promise((resolve) => setTimeout(resolve, Math.max(0, next - performance.now())));
  }
}

for (const [id, line] of lines) element(id, HTMLElement).parentElement?.append(line.element);
void keepAsking();
