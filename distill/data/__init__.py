"""Training data, from recording to batches.

`environments` (adapters) → `collect` (recorded streams) → `clips` (the file format) → `latents` (encoded streams and
clips drawn from them); `statistics` describes pictures, `rollout_buffer` keeps a student's rollouts between steps.
"""
