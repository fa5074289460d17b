"""Measurements behind the project's claims. Owns one module per claim; each runs the real thing and its baseline."""
