"""Recipes: presets, the stages of a run, and the export of a checkpoint. Knows no evaluation and no command line."""
