"""The verb compile: its arguments, and what it prints. May import any room of `world`."""
