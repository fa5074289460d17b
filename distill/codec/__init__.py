"""Training the codec: its losses, decoder fine-tuning and the state estimator. Knows no recipe."""
