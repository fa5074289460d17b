/**
 * The operator page: polls the server once a second and shows its state and figures.
 *
 * Owns the polling and the elements of operator.html; `figures.ts` computes the figures.
 */

import { LightconeError } from "../errors";
import { parseMetrics, type Scrape } from "../metrics";
import { element, milliseconds } from "./dom";
import { FigureReader, type Figures, type Latency, type Tally, type Timing } from "./figures";
import { Sparkline } from "./sparkline";
import "./style.css";
import "./operator.css";

const POLL_MS = 1000;
/** A server that takes longer to answer counts as unreachable. */
const TIMEOUT_MS = 5000;

/** The status in `/readyz`, or "unreachable". */
type Status = "ready" | "loading" | "draining" | "failed" | "unreachable";

const LABELS: Readonly<Record<Status, string>> = {
  ready: "Ready",
  loading: "Loading",
  draining: "Draining",
  failed: "Failed",
  unreachable: "Unreachable",
};

const EXPLANATIONS: Readonly<Record<Status, string>> = {
  ready: "",
  loading: "The worlds are being loaded and warmed up; nobody can play yet.",
  draining: "The server is about to stop and accepts no new players.",
  failed: "Nobody can play: the worlds could not be loaded, or the server failed. See its log.",
  unreachable: "The server cannot be reached.",
};

/** An answer of `/readyz`: the status, and how far compiling in the background is ("compiling 3 of 8"), if it is said. */
interface Readiness {
  readonly status: Status;
  readonly compilation: string;
}

interface Tile {
  readonly id: string;
  readonly read: (figures: Figures) => number | null;
  readonly write: (value: number, figures: Figures) => string;
  /** The text below; by default the peak of the last minute. */
  readonly note?: (figures: Figures) => string;
}

const TILES: readonly Tile[] = [
  { id: "sessions", read: ({ sessions }) => sessions, write: String },
  { id: "queue", read: ({ queue }) => queue, write: String },
  { id: "suspended", read: ({ suspended }) => suspended, write: String },
  { id: "batch", read: ({ batch }) => batch, write: rate },
  { id: "sent", read: ({ sent }) => sent, write: rate },
  { id: "replaced", read: ({ replaced }) => replaced, write: rate },
  {
    id: "p50",
    read: ({ actionToFrame }) => actionToFrame?.p50.ms ?? null,
    write: (ms, { actionToFrame }) => latency({ ms, beyond: actionToFrame?.p50.beyond === true }),
    note: ({ actionToFrame }) => `of ${rate(actionToFrame?.perSecond ?? 0)} acts/s`,
  },
  {
    id: "p99",
    read: ({ actionToFrame }) => actionToFrame?.p99.ms ?? null,
    write: (ms, { actionToFrame }) => latency({ ms, beyond: actionToFrame?.p99.beyond === true }),
  },
];

const reader = new FigureReader();
const lines = new Map(TILES.map(({ id }) => [id, new Sparkline()]));
let readAt: Date | null = null;

/** Fetches a path of the server; null if it did not answer. */
async function request(path: string): Promise<Response | null> {
  const response = fetch(path, { cache: "no-store", signal: AbortSignal.timeout(TIMEOUT_MS) });
  return response.catch((error: unknown) => {
    if (error instanceof TypeError || error instanceof DOMException) return null; // no connection, or a timeout
    throw error;
  });
}

/** Fetches the status; an answer without a known status, as from a proxy without its server, counts as unreachable. */
async function fetchReadiness(): Promise<Readiness> {
  const answer = await request("readyz");
  const { status, compilation = "" } = ((await answer?.json().catch(() => null)) ?? {}) as Partial<Readiness>;
  return status !== undefined && Object.hasOwn(LABELS, status)
    ? { status, compilation: String(compilation) }
    : { status: "unreachable", compilation: "" };
}

/** Fetches the metrics, or returns why there are none. */
async function fetchMetrics(): Promise<Scrape | string> {
  const answer = await request("metrics");
  if (!answer?.ok) return answer ? `The server does not provide its metrics: /metrics answered with status ${answer.status}.` : "";
  try {
    return parseMetrics(await answer.text(), performance.now());
  } catch (error) {
    if (error instanceof LightconeError) return `The answer of /metrics cannot be read: ${error.message}.`;
    if (error instanceof TypeError || error instanceof DOMException) return ""; // the answer was cut off
    throw error;
  }
}

async function refresh(): Promise<void> {
  const [{ status, compilation }, metrics] = await Promise.all([fetchReadiness(), fetchMetrics()]);
  const known = status !== "unreachable" && typeof metrics !== "string";
  if (known) {
    show(reader.read(metrics), metrics.at);
    readAt = new Date();
  } else {
    for (const line of lines.values()) line.push(performance.now(), null);
  }
  const trouble = EXPLANATIONS[status] || (typeof metrics === "string" ? metrics || EXPLANATIONS.unreachable : "");
  const age = known || !readAt ? "" : ` The figures are from ${readAt.toLocaleTimeString()}.`;
  showState(status, trouble + age, !known);
  showCompilation(compilation);
}

/** Says that steps are about to get faster, while they are. */
function showCompilation(compilation: string): void {
  const notice = element("compilation", HTMLElement);
  notice.hidden = !compilation.startsWith("compiling");
  write(notice, `This server is ${compilation} parts of faster code for its CPU; more players fit with each.`);
}

function showState(status: Status, trouble: string, stale: boolean): void {
  const pill = element("state", HTMLElement);
  pill.dataset["state"] = status;
  write(pill.querySelector("span"), LABELS[status]); // only if it changes, since it is announced
  const notice = element("trouble", HTMLElement);
  notice.hidden = trouble === "";
  write(notice, trouble);
  element("figures", HTMLElement).dataset["stale"] = String(stale);
  document.title = `${LABELS[status]} · Lightcone operator`;
}

function show(figures: Figures, at: number): void {
  for (const tile of TILES) showTile(tile, figures, at);
  const timed = ({ labels, perSecond, p50, p99 }: Timing, ...names: string[]): string[] => {
    return [...names.map((name) => labels[name] ?? ""), rate(perSecond), latency(p50), latency(p99)];
  };
  fill("ticks", figures.ticks.map((timing) => timed(timing, "world", "batch")), "None yet");
  fill("decodes", figures.decodes.map((timing) => timed(timing, "world")), "None yet");
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

/** Fills a table's body. Cells are reused, so that a text selection survives the next update. */
function fill(id: string, rows: readonly string[][], placeholder: string): void {
  const [body] = element(id, HTMLTableElement).tBodies;
  if (!body) throw new TypeError(`the table "${id}" has no body`);
  const columns = element(id, HTMLTableElement).tHead?.rows[0]?.cells.length ?? 1;
  const shown = rows.length > 0 ? rows : [[placeholder]];
  while (body.rows.length > shown.length) body.deleteRow(-1);
  shown.forEach((cells, index) => {
    const row = body.rows[index] ?? body.insertRow();
    if (row.cells.length !== cells.length) row.replaceChildren(...cells.map((_, column) => cell(column === 0 && cells.length > 1)));
    cells.forEach((text, column) => write(row.cells[column] ?? null, text));
    const [first] = row.cells;
    if (first && cells.length === 1) first.colSpan = columns;
  });
}

function cell(isHeader: boolean): HTMLElement {
  const created = document.createElement(isHeader ? "th" : "td");
  if (isHeader) created.setAttribute("scope", "row");
  return created;
}

function write(target: Element | null, text: string): void {
  if (target && target.textContent !== text) target.textContent = text;
}

/** Refreshes once a second while the page is visible. */
async function poll(): Promise<never> {
  for (;;) {
    const next = performance.now() + POLL_MS;
    if (document.visibilityState === "visible") await refresh();
    await new Promise((resolve) => setTimeout(resolve, Math.max(0, next - performance.now())));
  }
}

for (const [id, line] of lines) element(id, HTMLElement).parentElement?.append(line.element);
void poll();
