"""Serving a world to many players at once: wire protocol, sessions, scheduler, engine and application.

Owns: everything between a socket and a rollout. Does not know: how worlds are trained (`distill`) or played (`clients`).

Reading order, as the data flows: `protocol` → `session` → `scheduler` → `engine` → `frames` → `app`.
"""
