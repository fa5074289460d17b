/**
 * The errors the SDK raises or reports. Each says what happened in words a player can read.
 *
 * - `LightconeError`: the tree's root.
 *   - `ServerRefusal`: the server sent a typed error; `code` is the protocol's.
 *   - `ConnectionLost`: the socket closed or could not open.
 *   - `ProtocolViolation`: the server sent something this client cannot read.
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
