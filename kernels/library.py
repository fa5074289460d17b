"""The torch library that fused operations are registered in, as `torch.ops.lightcone`. Owns its name."""

import torch

library = torch.library.Library("lightcone", "DEF")
