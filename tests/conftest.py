"""What all tests share: one thread for tensors. The models are tiny; waking a second core costs more than it gives."""

import torch

torch.set_num_threads(1)
