"""Compiling for the served worlds beside the game: a child process at the lowest priority, and who asks it."""
