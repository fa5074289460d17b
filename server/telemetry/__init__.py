"""What the server reports about itself: log, metrics and traces. May import `errors`, `wire` and `config`."""
