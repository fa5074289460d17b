/** What every page of this folder needs: finding its elements, and how a time is written. Knows none of the pages. */

/** The element with this id, of the kind the page declares it to be. */
export function element<T extends HTMLElement>(id: string, kind: new () => T): T {
  const found = document.getElementById(id);
  if (!(found instanceof kind)) throw new TypeError(`the page has no <${kind.name}> with id "${id}"`);
  return found;
}

/** A dash where it is not known. */
export function milliseconds(value: number | null): string {
  return value === null ? "–" : `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;
}
