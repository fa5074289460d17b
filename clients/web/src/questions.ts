/**
 * Controls that wait for an answer. Owns who is told of it; what nobody waits for is not kept. Knows no socket.
 */

import type { LightconeError } from "./errors";
import type { ActionLogMessage, ForkedMessage, ReceiptMessage, SavedMessage } from "./protocol";

export type Answer = ForkedMessage | SavedMessage | ActionLogMessage | ReceiptMessage;
export type AnswerTo<T extends Answer["type"]> = Extract<Answer, { readonly type: T }>;

interface Question {
  readonly type: Answer["type"];
  resolve(answer: Answer): void;
  reject(reason: LightconeError): void;
}

export class Questions {
  private readonly open = new Map<number, Question>();

  /** The control `seq` waits for a message of this type; other messages about it are not its answer. */
  put<T extends Answer["type"]>(
    seq: number,
    type: T,
    resolve: (answer: AnswerTo<T>) => void,
    reject: (reason: LightconeError) => void,
  ): void {
    this.open.set(seq, { type, resolve: resolve as (answer: Answer) => void, reject });
  }

  answer(answer: Answer): void {
    const question = this.open.get(answer.seq ?? -1);
    if (question?.type !== answer.type) return;
    this.open.delete(answer.seq ?? -1);
    question.resolve(answer);
  }

  /** Returns false where nobody waits for an answer to `seq`. */
  refuse(seq: number, reason: LightconeError): boolean {
    const question = this.open.get(seq);
    this.open.delete(seq);
    question?.reject(reason);
    return question !== undefined;
  }

  refuseAll(reason: LightconeError): void {
    for (const seq of [...this.open.keys()]) this.refuse(seq, reason);
  }
}
