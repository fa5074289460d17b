/**
 * A gamepad as holder of the world's buttons.
 *
 * Owns the mapping of the standard layout (w3.org/TR/gamepad, section "Remapping"): buttons named for a direction sit on
 * the d-pad and the left stick, the others on the face and shoulder buttons in the card's order. The Gamepad API has no
 * events for buttons, so it is polled in animation frames while a pad is connected.
 */

/** The part of `Gamepad` that is read. */
export interface PadReading {
  readonly buttons: readonly { readonly pressed: boolean }[];
  readonly axes: readonly number[];
}

/** Beyond this a stick counts as pushed; below, as a thumb resting on it. */
const STICK_THRESHOLD = 0.5;

const DIRECTIONS: Readonly<Record<string, { readonly button: number; readonly axis: number; readonly sign: number }>> = {
  up: { button: 12, axis: 1, sign: -1 },
  down: { button: 13, axis: 1, sign: 1 },
  left: { button: 14, axis: 0, sign: -1 },
  right: { button: 15, axis: 0, sign: 1 },
};

/** Which of the world's buttons this reading holds. */
export function padButtons(pad: PadReading, names: readonly string[]): Set<string> {
  const others = names.filter((name) => !(name in DIRECTIONS));
  const held = names.filter((name) => {
    const direction = DIRECTIONS[name];
    if (!direction) return pad.buttons[others.indexOf(name)]?.pressed === true;
    const push = (pad.axes[direction.axis] ?? 0) * direction.sign;
    return pad.buttons[direction.button]?.pressed === true || push > STICK_THRESHOLD;
  });
  return new Set(held);
}

export interface Holder {
  press(button: string, holder: string, at: number): void;
  release(button: string, holder: string, at: number): void;
}

export class GamepadInput {
  private held = new Set<string>();
  private polling = false;

  constructor(
    private readonly names: () => readonly string[],
    private readonly holder: () => Holder | null,
  ) {
    window.addEventListener("gamepadconnected", () => this.wake());
  }

  private wake(): void {
    if (this.polling) return;
    this.polling = true;
    requestAnimationFrame(() => this.poll());
  }

  private poll(): void {
    const pads = navigator.getGamepads().filter((pad) => pad !== null);
    const names = this.names();
    const held = new Set(pads.flatMap((pad) => [...padButtons(pad, names)]));
    const holder = this.holder();
    const at = performance.now();
    for (const button of held) if (!this.held.has(button)) holder?.press(button, "pad", at);
    for (const button of this.held) if (!held.has(button)) holder?.release(button, "pad", at);
    this.held = held;
    this.polling = false;
    if (pads.length > 0) this.wake();
  }
}
