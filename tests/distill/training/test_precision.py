"""Autocast follows the module's device, whatever else the machine has."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from distill.training.precision import autocast
from world.device import has_fast_bf16


def test_a_module_on_the_cpu_is_not_cast_as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    for fast in (True, False):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda fast=fast: fast)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
        assert has_fast_bf16(torch.device("cpu")) is fast
        assert has_fast_bf16()
        with autocast(nn.Linear(2, 2)):
            assert torch.is_autocast_enabled("cpu") is fast
            assert not torch.is_autocast_enabled("cuda")


def test_a_module_in_float64_keeps_its_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distill.training.precision.has_fast_bf16", lambda device: True)
    module = nn.Linear(2, 2).double()
    with autocast(module):
        assert module(torch.ones(1, 2, dtype=torch.float64)).dtype == torch.float64
