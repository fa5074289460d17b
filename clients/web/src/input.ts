/**
 * Which buttons are held, and by what.
 *
 * Owns the state of the controls: several holders (a key, a finger, a gamepad button) may hold the same button, and it
 * is up only when the last of them lets go. Knows no DOM, no socket and no clock, so that it can be tested as plain data.
 */

export interface ButtonRule {
  /** Names of the world's buttons, in the card's order. */
  readonly buttons: readonly string[];
  /** True where the world knows at most one button at a time; the newest press then wins. */
  readonly exclusive: boolean;
}

export class InputState {
  /** button -> its holders; the Map's order is the order in which the buttons went down. */
  private readonly held = new Map<string, Set<string>>();

  constructor(private readonly rule: ButtonRule) {}

  /** Lets `holder` hold `button`. Returns true when this changes what the world should see. */
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

  /** Takes `holder` off `button`. Returns true when this changes what the world should see. */
  release(button: string, holder: string): boolean {
    return this.changes(() => {
      const holders = this.held.get(button);
      holders?.delete(holder);
      if (holders?.size === 0) this.held.delete(button);
    });
  }

  /** Lets go of everything, as on a lost focus. Returns true when something was held. */
  releaseAll(): boolean {
    return this.changes(() => this.held.clear());
  }

  /** The pressed buttons as the world should see them, in the card's order. */
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
