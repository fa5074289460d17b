/**
 * Which buttons are held, and by what.
 *
 * Owns the state of the controls: several holders (a key, a finger, a gamepad button) may hold the same button, which is
 * released when the last of them releases it. Knows no DOM, no socket and no clock.
 */

export interface ButtonRule {
  /** Names of the world's buttons, in the card's order. */
  readonly buttons: readonly string[];
  /** True if the world accepts only one button at a time; the newest press then wins. */
  readonly exclusive: boolean;
}

export class InputState {
  /** Maps each button to its holders, in the order in which the buttons were pressed. */
  private readonly held = new Map<string, Set<string>>();

  constructor(private readonly rule: ButtonRule) {}

  /** Presses `button` for `holder`. Returns true if this changes `pressed()`. */
  press(button: string, holder: string): boolean {
    if (!this.rule.buttons.includes(button)) {
      throw new RangeError(`unknown button "${button}"; this world has ${this.rule.buttons.join(", ") || "none"}`);
    }
    return this.changes(() => {
      const holders = this.held.get(button);
      if (holders) holders.add(holder);
      else this.held.set(button, new Set([holder]));
    });
  }

  /** Releases `button` for `holder`. Returns true if this changes `pressed()`. */
  release(button: string, holder: string): boolean {
    return this.changes(() => {
      const holders = this.held.get(button);
      holders?.delete(holder);
      if (holders?.size === 0) this.held.delete(button);
    });
  }

  /** Releases every button, as when the page loses the focus. Returns true if this changes `pressed()`. */
  releaseAll(): boolean {
    return this.changes(() => this.held.clear());
  }

  /** The pressed buttons to send to the world, in the card's order. */
  pressed(): string[] {
    const down = [...this.held.keys()];
    if (this.rule.exclusive) return down.slice(-1);
    return this.rule.buttons.filter((button) => this.held.has(button));
  }

  private changes(edit: () => void): boolean {
    const before = this.pressed().join("\n");
    edit();
    return this.pressed().join("\n") !== before;
  }
}
