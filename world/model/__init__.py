"""The transformer that is teacher, critic and student: config, noise schedule, attention patterns, network."""
