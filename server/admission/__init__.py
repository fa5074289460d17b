"""Who plays and who waits: session registry, admission queue and capacity. May import the rooms up to `state`."""
