/**
 * Controls that wait for a reply. Owns which callback gets which reply; unexpected replies are ignored. Knows no socket.
 */

import type { LightconeError } from "./errors";
import type { ActionLogMessage, ForkedMessage, ReceiptMessage, SavedMessage } from "./protocol";

export type Reply = ForkedMessage | SavedMessage | ActionLogMessage | ReceiptMessage;
export type ReplyOf<T extends Reply["type"]> = Extract<Reply, { readonly type: T }>;

interface PendingRequest {
  readonly type: Reply["type"];
  resolve(reply: Reply): void;
  reject(reason: LightconeError): void;
}

export class PendingRequests {
  private readonly pending = new Map<number, PendingRequest>();

  /** Waits for the reply of type `type` to the control `seq`; messages of other types about it are not its reply. */
  add<T extends Reply["type"]>(
    seq: number,
    type: T,
    resolve: (reply: ReplyOf<T>) => void,
    reject: (reason: LightconeError) => void,
  ): void {
    this.pending.set(seq, { type, resolve: resolve as (reply: Reply) => void, reject });
  }

  resolve(reply: Reply): void {
    const request = this.pending.get(reply.seq ?? -1);
    if (request?.type !== reply.type) return;
    this.pending.delete(reply.seq ?? -1);
    request.resolve(reply);
  }

  /** Returns false if no request with number `seq` is pending. */
  reject(seq: number, reason: LightconeError): boolean {
    const request = this.pending.get(seq);
    this.pending.delete(seq);
    request?.reject(reason);
    return request !== undefined;
  }

  rejectAll(reason: LightconeError): void {
    for (const seq of [...this.pending.keys()]) this.reject(seq, reason);
  }
}
