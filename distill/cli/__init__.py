"""The verbs collect, train and eval: their arguments, and what they print. May import any room of `distill`."""
