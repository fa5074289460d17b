"""Linear layers for inference with weights packed once: dispatch. Owns the choice; knows no models.

In bfloat16 on a CPU with AMX tiles, a product with a few dozen rows spends a good part of its time reordering the
weight. `pack_linears` does that once. Everywhere else the layers stay as they are. `python -m kernels.linear.timing`
prints both on this machine.
"""

import torch
from torch import nn

from kernels.linear.packed import PackedLinear, can_pack

__all__ = ["pack_linears"]


def pack_linears(module: nn.Module, rows: int) -> None:
    """Pack every bfloat16 `nn.Linear` below `module`, in place, for inputs of about `rows` rows. The weights must not
    be changed or moved afterwards. Parameters keep their names; under autograd the layers run unpacked."""
    if not can_pack():
        return
    for name, child in module.named_children():
        if type(child) is nn.Linear and child.weight.dtype is torch.bfloat16 and child.weight.device.type == "cpu":
            setattr(module, name, PackedLinear(child, rows))
        else:
            pack_linears(child, rows)
