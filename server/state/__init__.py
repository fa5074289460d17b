"""Sessions without a slot: tickets, suspended sessions, session files and the store. May import up to `sessions`."""
