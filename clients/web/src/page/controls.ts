/**
 * Keyboard and on-screen buttons as holders of the world's buttons, and the page's own shortcuts.
 *
 * Owns which DOM events press and release what. Knows no socket and no picture. Bound keys never scroll the page; keys
 * typed into a field and combinations with Ctrl, Alt or Meta stay the browser's.
 */

import type { WorldInfo } from "../protocol";
import type { Holder } from "./gamepad";
import { keyCap } from "./keys";

export interface Target extends Holder {
  releaseAll(): void;
}

/** What moves a focused slider; Enter plays from where it stands. */
const SLIDER_KEYS = /^(Arrow.*|Home|End|Page.*|Enter)$/;

/** A key is the browser's while a dialog is open, or the focus is in something that itself listens to it. */
function isForTheBrowser(event: KeyboardEvent): boolean {
  if (event.ctrlKey || event.altKey || event.metaKey || document.querySelector("dialog[open]")) return true;
  const target = event.target;
  if (!(target instanceof HTMLElement)) return false;
  if (target instanceof HTMLInputElement && target.type === "range") return SLIDER_KEYS.test(event.code);
  if (target.matches("select, input, textarea, [contenteditable]")) return true;
  return target instanceof HTMLButtonElement && !target.disabled && ["Space", "Enter"].includes(event.code);
}

export class Keyboard {
  private bindings = new Map<string, string>();
  private readonly down = new Map<string, string>();

  /** `shortcuts`: `KeyboardEvent.code` -> what the page does, where the world does not bind the same key. */
  constructor(
    private readonly target: () => Target | null,
    private readonly shortcuts: Readonly<Record<string, () => void>>,
  ) {
    window.addEventListener("keydown", (event) => this.onDown(event));
    window.addEventListener("keyup", (event) => this.onUp(event));
    window.addEventListener("blur", () => this.letGo());
    document.addEventListener("visibilitychange", () => {
      if (document.visibilityState === "hidden") this.letGo();
    });
  }

  /** Binds the keys of the world's card. */
  bind(world: WorldInfo): void {
    this.bindings = new Map(world.buttons.flatMap((button) => button.keys.map((code) => [code, button.name] as const)));
    this.down.clear();
  }

  /** True where the world itself uses the key. */
  isBound(code: string): boolean {
    return this.bindings.has(code);
  }

  private onDown(event: KeyboardEvent): void {
    if (isForTheBrowser(event)) return;
    const button = this.bindings.get(event.code);
    if (button !== undefined) {
      event.preventDefault();
      if (event.repeat) return;
      this.down.set(event.code, button);
      this.target()?.press(button, `key:${event.code}`, event.timeStamp);
    } else if (!event.repeat && !event.shiftKey) {
      this.shortcuts[event.code]?.();
    }
  }

  private onUp(event: KeyboardEvent): void {
    // By what the key pressed, whatever has the focus or which modifiers are down by now: no button may stick.
    const button = this.down.get(event.code);
    if (button === undefined) return;
    event.preventDefault();
    this.down.delete(event.code);
    this.target()?.release(button, `key:${event.code}`, event.timeStamp);
  }

  private letGo(): void {
    this.down.clear();
    this.target()?.releaseAll();
  }
}

/** Fills `pad` with one on-screen button per button of the world; each shows the keys that do the same. */
export function buildPad(pad: HTMLElement, world: WorldInfo, target: () => Target | null): void {
  pad.replaceChildren(
    ...world.buttons.map(({ name, label, keys }) => {
      const button = document.createElement("button");
      button.type = "button";
      button.dataset["button"] = name;
      const text = document.createElement("span");
      text.textContent = label;
      const caps = keys.map((code) => {
        const cap = document.createElement("kbd");
        cap.textContent = keyCap(code);
        return cap;
      });
      button.append(text, ...caps);
      listen(button, name, target);
      return button;
    }),
  );
}

/** Fingers and mouse hold a button while they are down; the space bar and Enter hold the focused one. */
function listen(element: HTMLButtonElement, name: string, target: () => Target | null): void {
  element.addEventListener("pointerdown", (event) => {
    element.setPointerCapture(event.pointerId);
    target()?.press(name, `pointer:${event.pointerId}`, event.timeStamp);
  });
  const letGo = (event: PointerEvent): void => target()?.release(name, `pointer:${event.pointerId}`, event.timeStamp);
  element.addEventListener("pointerup", letGo);
  element.addEventListener("pointercancel", letGo);
  element.addEventListener("lostpointercapture", letGo);
  // The keyboard's focus stays where it is, so that a bound space bar is not taken for a press of this button.
  element.addEventListener("mousedown", (event) => event.preventDefault());
  element.addEventListener("contextmenu", (event) => event.preventDefault());
  const activates = (event: KeyboardEvent): boolean => event.code === "Space" || event.code === "Enter";
  element.addEventListener("keydown", (event) => {
    if (!activates(event)) return;
    event.preventDefault();
    if (!event.repeat) target()?.press(name, "focus", event.timeStamp);
  });
  element.addEventListener("keyup", (event) => {
    if (activates(event)) target()?.release(name, "focus", event.timeStamp);
  });
  element.addEventListener("blur", (event) => target()?.release(name, "focus", event.timeStamp));
}

/** Shows on the on-screen buttons what is held, by whatever holds it. */
export function showHeld(pad: HTMLElement, pressed: readonly string[]): void {
  for (const element of pad.querySelectorAll<HTMLElement>("[data-button]")) {
    element.dataset["held"] = String(pressed.includes(element.dataset["button"] ?? ""));
  }
}
