/** Helpers shared by the pages: finding elements and formatting times. Knows none of the pages. */

/** Returns the element with this id. @throws TypeError if it is missing or of another type. */
export function element<T extends HTMLElement>(id: string, kind: new () => T): T {
  const found = document.getElementById(id);
  if (!(found instanceof kind)) throw new TypeError(`the page has no <${kind.name}> with id "${id}"`);
  return found;
}

/** Formats a time; a dash if it is unknown. */
export function milliseconds(value: number | null): string {
  return value === null ? "–" : `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;
}
