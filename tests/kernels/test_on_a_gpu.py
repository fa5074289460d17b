"""A check that needs a GPU: a captured graph works for other slots than those it was captured with."""

import pytest
import torch

from kernels.qk_norm_rope_write import qk_norm_rope_write
from kernels.ring_attention import ring_attention
from tests.kernels.test_qk_norm_rope_write import Case

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


def test_one_graph_serves_any_slots_and_places() -> None:
    arguments = Case(b=2, t=4, heads=3, dim=64, length=64, dtype=torch.bfloat16).arguments()
    valid = torch.full((2,), 64, dtype=torch.int32, device="cuda")

    def step() -> torch.Tensor:
        query, _ = qk_norm_rope_write(**arguments)
        return ring_attention(query, arguments["keys"], arguments["values"], arguments["slots"], valid)[0]

    step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = step()
    for slots, places, seen in (([3, 1], [0, 60], [64, 64]), ([0, 2], [17, 5], [33, 64])):
        arguments["slots"].copy_(torch.tensor(slots))
        arguments["places"].copy_(torch.tensor(places))
        valid.copy_(torch.tensor(seen))
        graph.replay()
        torch.cuda.synchronize()
        assert torch.equal(out, step())
