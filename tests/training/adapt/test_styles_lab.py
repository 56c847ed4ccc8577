"""LAB statistics: the colours are CIELAB's, and a picture gets the target's mean and spread."""

import pytest
import torch
from training.settings import make_context, make_stage

from rtda_training.adapt.styles.lab import LabStyle, LabStyleConfig, bgr_from_lab, lab_from_bgr, lab_transfer


def pictures(seed, height=24, width=32):
    return torch.rand(2, height, width, 3, generator=torch.Generator().manual_seed(seed)) * 160 + 40


def test_known_colours_have_the_lab_values_of_the_standard():
    bgr = torch.tensor([[0.0, 0.0, 255.0], [0.0, 255.0, 0.0], [255.0, 0.0, 0.0], [255.0] * 3, [0.0] * 3])
    wanted = [[53.24, 80.09, 67.20], [87.73, -86.18, 83.18], [32.30, 79.19, -107.86], [100.0, 0.0, 0.0], [0.0] * 3]
    torch.testing.assert_close(lab_from_bgr(bgr), torch.tensor(wanted), atol=0.02, rtol=0)


def test_lab_and_back_changes_nothing():
    frames = torch.cat([pictures(0).reshape(-1, 3), torch.zeros(1, 3), torch.full((1, 3), 3.0)])
    torch.testing.assert_close(bgr_from_lab(lab_from_bgr(frames)), frames, atol=0.05, rtol=0)


def test_a_picture_gets_the_targets_mean_and_spread_and_keeps_its_order_of_lightness():
    source, target = pictures(0), pictures(1) * 0.4 + 90
    styled = lab_from_bgr(lab_transfer(source, target))
    wanted = lab_from_bgr(target)
    torch.testing.assert_close(styled.mean((1, 2)), wanted.mean((1, 2)), atol=0.1, rtol=0)
    torch.testing.assert_close(styled.std((1, 2)), wanted.std((1, 2)), atol=0.1, rtol=0)
    before, after = lab_from_bgr(source)[0, ..., 0].flatten(), styled[0, ..., 0].flatten()
    assert torch.corrcoef(torch.stack([before, after]))[0, 1] > 0.999


def test_equal_pictures_come_back_unchanged_and_a_flat_one_stays_finite():
    torch.testing.assert_close(lab_transfer(pictures(0), pictures(0)), pictures(0), atol=0.05, rtol=0)
    flat = torch.full((2, 8, 8, 3), 100.0)
    styled = lab_transfer(flat, pictures(1))
    assert styled.isfinite().all() and styled.std() < 40


@pytest.mark.parametrize(("strength", "probability"), [(0.0, 1.0), (1.0, 0.0)])
def test_a_strength_or_probability_of_0_leaves_pictures_alone(strength, probability):
    context = make_context(stage := make_stage(), source_frames=pictures(0), target_frames=pictures(1))
    assert torch.equal(LabStyle(LabStyleConfig(strength, probability), stage).apply(context), context.source_frames)


def test_half_the_strength_goes_half_the_way():
    context = make_context(stage := make_stage(), source_frames=pictures(0), target_frames=pictures(1))
    half = LabStyle(LabStyleConfig(strength=0.5), stage).apply(context)
    torch.testing.assert_close(half, (pictures(0) + lab_transfer(pictures(0), pictures(1))) / 2)
