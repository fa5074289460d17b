"""Distillation: environments → clips → codec → latents → teacher → student. Knows `world`; never imports `server`."""
