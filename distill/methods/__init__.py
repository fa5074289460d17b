"""Distillation methods: pure losses over the `Network` interface. They know no model, data or optimiser."""
