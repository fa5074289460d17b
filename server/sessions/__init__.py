"""One player's session as plain state: its input, runs, branches and pacing. May import the rooms up to `telemetry`."""
