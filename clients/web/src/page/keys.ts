/**
 * Names of keys as people read them on the caps. Owns the table; knows no bindings and no events.
 */

const CAPS: Readonly<Record<string, string>> = {
  ArrowUp: "↑",
  ArrowDown: "↓",
  ArrowLeft: "←",
  ArrowRight: "→",
  Space: "Space",
  Enter: "Enter",
  Escape: "Esc",
  ShiftLeft: "Shift",
  ShiftRight: "Shift",
  ControlLeft: "Ctrl",
  ControlRight: "Ctrl",
  AltLeft: "Alt",
  AltRight: "Alt",
  Comma: ",",
  Period: ".",
  Slash: "/",
  Semicolon: ";",
  Minus: "-",
  Equal: "=",
};

/** The cap of a `KeyboardEvent.code`: "ArrowUp" is "↑", "KeyW" is "W". Codes without a known cap stay as they are. */
export function keyCap(code: string): string {
  return CAPS[code] ?? /^(?:Key|Digit)(.)$/.exec(code)?.[1] ?? code.replace(/^Numpad/, "Num ");
}
