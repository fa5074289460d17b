"""Distillation methods: pure losses over the network contract. Methods know no model, no data and no optimiser."""
