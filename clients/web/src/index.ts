/** The SDK: everything a page or program needs to play a Lightcone world. */

export * from "./client";
export * from "./client-types";
export * from "./drift";
export * from "./errors";
export * from "./input";
export * from "./player";
export * from "./player-types";
export * from "./playout";
export * from "./presenter";
export * from "./protocol";
export * from "./reconnect";
export * from "./recorder";
export * from "./replay";
export * from "./stats";
export * from "./take";
export * from "./timeline";
export * from "./wire";
