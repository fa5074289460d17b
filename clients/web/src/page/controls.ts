/**
 * Keyboard and on-screen buttons that press the world's buttons, and the page's shortcuts.
 *
 * Owns which DOM events press and release which button. Knows no socket and no picture. Bound keys never scroll the page;
 * keys typed into a field and combinations with Ctrl, Alt or Meta are left to the browser.
 */

import type { WorldInfo } from "../protocol";
import type { ButtonTarget } from "./gamepad";
import { keyCap } from "./keys";

export interface InputTarget extends ButtonTarget {
  releaseAll(): void;
}

/** Keys that a focused slider handles; Enter plays from the shown frame. */
const SLIDER_KEYS = /^(Arrow.*|Home|End|Page.*|Enter)$/;

/** Whether to leave a key to the browser: a dialog is open, or the focused element handles the key itself. */
function isForTheBrowser(event: KeyboardEvent): boolean {
  if (event.ctrlKey || event.altKey || event.metaKey || document.querySelector("dialog[open]")) return true;
  const target = event.target;
  if (!(target instanceof HTMLElement)) return false;
  if (target instanceof HTMLInputElement && target.type === "range") return SLIDER_KEYS.test(event.code);
  if (target.matches("select, input, textarea, [contenteditable]")) return true;
  return target instanceof HTMLButtonElement && !target.disabled && ["Space", "Enter"].includes(event.code);
}

/** Whether the event says that a modifier key is held, by the beginning of the codes of its keys. */
function modifiers({ shiftKey, ctrlKey, altKey, metaKey }: KeyboardEvent): Readonly<Record<string, boolean>> {
  return { Shift: shiftKey, Control: ctrlKey, Alt: altKey, Meta: metaKey };
}

export class Keyboard {
  private bindings = new Map<string, string>();
  private readonly down = new Map<string, string>();

  /** `shortcuts`: actions of the page by `KeyboardEvent.code`, for keys that the world does not bind. */
  constructor(
    private readonly target: () => InputTarget | null,
    private readonly shortcuts: Readonly<Record<string, () => void>>,
  ) {
    window.addEventListener("keydown", (event) => this.onDown(event));
    window.addEventListener("keyup", (event) => this.onUp(event));
    window.addEventListener("blur", () => this.releaseAll());
    window.addEventListener("contextmenu", () => this.releaseKeys(() => true)); // the menu gets the keyup events
    document.addEventListener("visibilitychange", () => {
      if (document.visibilityState === "hidden") this.releaseAll();
    });
  }

  /** Binds the keys in the world's card. */
  bind(world: WorldInfo): void {
    this.bindings = new Map(world.buttons.flatMap((button) => button.keys.map((code) => [code, button.name] as const)));
    this.down.clear();
  }

  /** Whether the world binds the key. */
  isBound(code: string): boolean {
    return this.bindings.has(code);
  }

  private onDown(event: KeyboardEvent): void {
    this.releaseUnreported(event);
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
    // Release what the key pressed, regardless of the current focus and modifiers, so that no button gets stuck.
    if (this.down.has(event.code)) event.preventDefault();
    this.releaseKeys((code) => code === event.code, event.timeStamp);
    this.releaseUnreported(event);
  }

  /**
   * Releases keys whose keyup the browser does not report: on macOS all that are held while Meta is, on Windows the first
   * of two Shift keys.
   */
  private releaseUnreported(event: KeyboardEvent): void {
    if (event.code.startsWith("Meta") || event.code.startsWith("OS")) this.releaseKeys((code) => code !== event.code);
    for (const [prefix, isHeld] of Object.entries(modifiers(event))) {
      if (!isHeld) this.releaseKeys((code) => code.startsWith(prefix) && code !== event.code, event.timeStamp);
    }
  }

  /** Releases what the keys that `chosen` accepts have pressed. */
  private releaseKeys(chosen: (code: string) => boolean, at = performance.now()): void {
    for (const [code, button] of [...this.down]) {
      if (!chosen(code)) continue;
      this.down.delete(code);
      this.target()?.release(button, `key:${code}`, at);
    }
  }

  private releaseAll(): void {
    this.down.clear();
    this.target()?.releaseAll();
  }
}

/** Fills `pad` with one on-screen button per button of the world, labelled with its keys. */
export function buildPad(pad: HTMLElement, world: WorldInfo, target: () => InputTarget | null): void {
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

/** Presses a button while a finger or the mouse is down on it, or while it is focused and Space or Enter is down. */
function listen(element: HTMLButtonElement, name: string, target: () => InputTarget | null): void {
  element.addEventListener("pointerdown", (event) => {
    element.setPointerCapture(event.pointerId);
    target()?.press(name, `pointer:${event.pointerId}`, event.timeStamp);
  });
  const release = (event: PointerEvent): void => target()?.release(name, `pointer:${event.pointerId}`, event.timeStamp);
  element.addEventListener("pointerup", release);
  element.addEventListener("pointercancel", release);
  element.addEventListener("lostpointercapture", release);
  // Keep the keyboard focus, so that a bound space bar does not press this button.
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

/** Marks the on-screen buttons that are held, by any input device. */
export function showHeld(pad: HTMLElement, pressed: readonly string[]): void {
  for (const element of pad.querySelectorAll<HTMLElement>("[data-button]")) {
    element.dataset["held"] = String(pressed.includes(element.dataset["button"] ?? ""));
  }
}
