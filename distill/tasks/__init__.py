"""Training tasks, one module per method or stage: draws, network roles and update order. Losses are in `methods`."""
