"""Measuring a world against its environment: generators, figures, drift, card. Held-out episodes only."""
