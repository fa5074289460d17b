"""The serving verbs of the command line: `serve`, `play` and `worlds`. May import every room of the server."""
