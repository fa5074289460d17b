"""The examples run and do not change the models that they wrap."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDPMScheduler, UNet2DModel

from examples import diffusers_unet, molecule
from world.model.transformer import Conditioning


def test_a_diffusers_unet_is_distilled_unmodified() -> None:
    unet = diffusers_unet.small_unet()
    wrapped = diffusers_unet.Wrapped(unet, DDPMScheduler())
    assert type(wrapped.unet) is UNet2DModel
    assert list(unet.state_dict()) == list(diffusers_unet.small_unet().state_dict())
    images = diffusers_unet.main(num_steps=3)
    assert images.shape == (16, 1, 8, 8)
    assert bool(images.isfinite().all())


def test_the_wrapped_unets_velocity_is_the_schedulers() -> None:
    """Compared with x0 computed from the UNet's noise prediction and the scheduler's levels."""
    scheduler = DDPMScheduler()
    unet = diffusers_unet.small_unet().requires_grad_(False)
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    alpha = scheduler.alphas_cumprod[500].double()
    signal, share = alpha.sqrt(), (1 - alpha).sqrt()
    noise = unet(x, 500).sample
    x0 = (x - share.float() * noise) / signal.float()
    sigma = (share / (signal + share)).float().expand(2)
    velocity = diffusers_unet.Wrapped(unet, scheduler)(x / (signal + share).float(), sigma, Conditioning()).prediction
    torch.testing.assert_close(velocity.float(), noise - x0, rtol=1e-4, atol=1e-4)


def test_a_molecule_keeps_its_bonds_in_one_step() -> None:
    atoms = molecule.main(num_steps=1200)
    bonds = (atoms - atoms.roll(1, dims=1)).norm(dim=2)
    assert float(bonds.mean()) == pytest.approx(2.0, abs=0.2)
    assert float(bonds.std()) < 0.4, "for untrained atoms it is 0.9"
