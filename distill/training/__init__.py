"""The training loop, moving averages and compiled blocks. Knows no task, no loss and no data."""
