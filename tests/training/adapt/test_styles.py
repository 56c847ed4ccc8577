"""Fourier domain adaptation: identity, reality, full swap, what stays and what moves."""

import pytest
import torch
from training.settings import make_stage

from rtda_deploy.errors import ConfigError
from rtda_training.adapt.styles.fda import FourierStyle, FourierStyleConfig, fourier_transfer


def pictures(seed, height=32, width=48):
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(seed)) * 200 + 20


@pytest.mark.parametrize("beta", [0.0, 0.01, 0.1, 0.5])
@pytest.mark.parametrize("size", [(32, 48), (33, 47)])
def test_equal_pictures_come_back_unchanged(beta, size):
    picture = pictures(0, *size)
    torch.testing.assert_close(fourier_transfer(picture, picture, beta), picture, atol=2e-3, rtol=0)


def test_the_mean_colour_becomes_the_targets_and_the_edges_stay():
    source = pictures(0) * 0.5 + 60
    target = pictures(1) * 0.3 + 90
    styled = fourier_transfer(source, target, 0.0)  # the mean alone
    torch.testing.assert_close(styled.mean((2, 3)), target.mean((2, 3)), atol=0.01, rtol=0)
    expected = source - source.mean((2, 3), keepdim=True) + target.mean((2, 3), keepdim=True)
    torch.testing.assert_close(styled, expected, atol=0.01, rtol=0)


@pytest.mark.parametrize("size", [(32, 48), (31, 47)])
def test_the_swapped_window_is_symmetric_so_the_spectrum_is_that_of_a_real_picture(size):
    source, target = pictures(0, *size) * 0.5 + 60, pictures(1, *size) * 0.5 + 60
    height, width = size
    reach = int(min(size) * 0.1)
    full = torch.fft.fft2(fourier_transfer(source, target, 0.1))
    ky = torch.fft.fftfreq(height, 1 / height).abs()[:, None] <= reach
    kx = torch.fft.fftfreq(width, 1 / width).abs()[None, :] <= reach
    window = (ky & kx).expand_as(full.real)
    # Clipping to 0..255 does not bite for these pictures, so amplitudes can be compared bin by bin.
    torch.testing.assert_close(full.abs()[window], torch.fft.fft2(target).abs()[window], rtol=1e-3, atol=0.5)
    torch.testing.assert_close(full.abs()[~window], torch.fft.fft2(source).abs()[~window], rtol=1e-3, atol=0.5)


def test_beta_one_half_swaps_every_amplitude():
    source, target = pictures(0) * 0.5 + 60, pictures(1) * 0.5 + 60
    styled = torch.fft.fft2(fourier_transfer(source, target, 0.5)).abs()
    wanted = torch.fft.fft2(target).abs()
    # Random phases push a few pixels past 0..255, where they are clipped; that is all that differs.
    assert ((styled - wanted).abs() / wanted.amax()).mean() < 1e-3


def test_nonsense_is_refused():
    with pytest.raises(ConfigError, match="beta"):
        fourier_transfer(pictures(0), pictures(1), 0.6)
    with pytest.raises(ConfigError, match="shape"):
        fourier_transfer(pictures(0), pictures(1, 16, 16), 0.1)


@pytest.mark.parametrize(("size", "wanted"), [((96, 128), ["fda.beta=0.02"]), ((128, 256), [])])
def test_a_window_that_holds_the_mean_alone_is_said_with_what_holds_more(tmp_path, size, wanted):
    told = []
    FourierStyle(FourierStyleConfig(beta=0.01), make_stage(folder=tmp_path, size_hw=size, tell=told.append))
    assert len(told) == len(wanted)
    assert all(setting in text for setting, text in zip(wanted, told, strict=True))
    moved = fourier_transfer(pictures(0, 96, 128), pictures(1, 96, 128) * 0.5, 0.02)
    shifted = fourier_transfer(pictures(0, 96, 128), pictures(1, 96, 128) * 0.5, 0.01)
    assert not torch.allclose(moved, shifted, atol=0.5)  # what the setting named brings more than the mean
