/**
 * The errors that the SDK throws or reports. Their messages are written for players.
 *
 * - `LightconeError`: the base class.
 *   - `ServerRefusal`: the server sent an error; `code` is one of the protocol's error codes.
 *   - `ConnectionLost`: the socket closed or could not be opened.
 *   - `ProtocolViolation`: the server sent a message that this client cannot read.
 */

import type { ErrorCode } from "./protocol";

export class LightconeError extends Error {
  override name = "LightconeError";
}

export class ServerRefusal extends LightconeError {
  override name = "ServerRefusal";

  constructor(
    readonly code: ErrorCode,
    message: string,
  ) {
    super(message);
  }
}

export class ConnectionLost extends LightconeError {
  override name = "ConnectionLost";
}

export class ProtocolViolation extends LightconeError {
  override name = "ProtocolViolation";
}
