"""Self-information and entropy of softmax maps: ADVENT's adversary, MinEnt, FDA's robust form."""

import numpy as np
import pytest
import torch
from training.settings import make_context, make_stage

from rtda_training.adapt.losses import SOURCE, domain_loss
from rtda_training.adapt.objectives.advent import Advent, AdventConfig, self_information
from rtda_training.adapt.objectives.adversarial import Adversarial, AdversarialConfig
from rtda_training.adapt.objectives.entropy import Entropy, EntropyConfig
from rtda_training.models import SegOutput


def logits_of(*, seed=0, scale=3.0, classes=5):
    return scale * torch.randn(2, classes, 8, 8, generator=torch.Generator().manual_seed(seed))


def entropy_in_numpy(logits):
    """float64 (N, H, W), in units of log C."""
    logits = logits.double().numpy()
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    return -(p * np.log2(p)).sum(1) / np.log2(logits.shape[1])


def context_of(stage, logits, **changes):
    """A step whose network gives these logits."""
    return make_context(stage, forward=lambda pictures: SegOutput(logits, logits, (), (logits,) * 4), **changes)


def test_self_information_is_p_log_p_of_each_class():
    logits = logits_of()
    p = logits.double().softmax(1)
    expected = -p * torch.log2(p) / np.log2(5)
    torch.testing.assert_close(self_information(logits).double(), expected, atol=1e-6, rtol=1e-5)


def test_a_sure_pixel_has_no_information_and_a_uniform_one_has_1_over_all_classes():
    sure = torch.tensor([1e4, -1e4, 0.0, 0.0]).view(1, 4, 1, 1).requires_grad_()
    information = self_information(sure)
    assert torch.equal(information, torch.zeros(1, 4, 1, 1))  # not NaN: p is 0 for three of them
    information.sum().backward()
    assert torch.equal(sure.grad, torch.zeros(1, 4, 1, 1))
    uniform = self_information(torch.zeros(1, 4, 1, 1))
    torch.testing.assert_close(uniform, torch.full((1, 4, 1, 1), 0.25))


def test_information_is_computed_in_float32_whatever_comes_in():
    assert self_information(logits_of().bfloat16()).dtype == torch.float32
    assert torch.isfinite(self_information(torch.full((1, 1, 2, 2), 3.0))).all()  # one class: log C is 0


def test_advent_is_rtdas_adversary_on_another_view():
    stage = make_stage()
    torch.manual_seed(1)
    advent = Advent(AdventConfig(weight=1.0), stage)
    context = make_context(stage)
    loss = advent.network_loss(context)
    shown = self_information(context.target_output().logits).detach()
    with torch.no_grad():
        torch.testing.assert_close(loss.detach(), domain_loss(advent.discriminator(shown), SOURCE))
    loss.backward()
    assert all(p.grad is None for p in advent.discriminator.parameters())
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in stage.network.parameters())
    assert advent.play(context, 1.0)["disc"] == pytest.approx(0.693, abs=0.05)


def test_advents_discriminator_is_the_large_one():
    stage = make_stage(19)
    assert sum(p.numel() for p in Advent(AdventConfig(), stage).discriminator.parameters()) == 2_781_121
    assert sum(p.numel() for p in Adversarial(AdversarialConfig(), stage).discriminator.parameters()) == 13_316


def test_plain_entropy_is_the_mean_over_pixels():
    stage, logits = make_stage(), logits_of()
    loss = Entropy(EntropyConfig(weight=2.0), stage).network_loss(context_of(stage, logits))
    assert loss.item() == pytest.approx(2.0 * entropy_in_numpy(logits).mean(), rel=1e-5)


@pytest.mark.parametrize("classes", [2, 5, 19])
def test_the_entropy_of_a_uniform_softmax_is_1_for_any_number_of_classes(classes):
    stage = make_stage(classes)
    loss = Entropy(EntropyConfig(weight=1.0), stage).network_loss(context_of(stage, torch.zeros(2, classes, 4, 4)))
    assert loss.item() == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("eta", [0.5, 2.0, 3.5])
def test_the_robust_penalty_is_taken_of_each_pixel(eta):
    stage, logits = make_stage(), logits_of()
    config = EntropyConfig(form="robust", weight=1.0, eta=eta)
    loss = Entropy(config, stage).network_loss(context_of(stage, logits))
    each = entropy_in_numpy(logits)
    assert loss.item() == pytest.approx(((each**2 + 1e-8) ** eta).mean(), rel=1e-5)


@pytest.mark.parametrize("eta", [0.25, 0.5, 2.0])
def test_sure_pixels_give_the_robust_form_finite_gradients(eta):
    stage = make_stage(3)
    logits = torch.tensor([1e4, 0.0, -1e4]).view(1, 3, 1, 1).repeat(2, 1, 4, 4).requires_grad_()
    Entropy(EntropyConfig(form="robust", eta=eta), stage).network_loss(context_of(stage, logits)).backward()
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize("form", ["plain", "robust"])
def test_a_step_along_the_gradient_makes_the_network_surer(form):
    stage = make_stage()
    objective = Entropy(EntropyConfig(form=form, weight=1.0), stage)
    first = objective.network_loss(make_context(stage))
    first.backward()
    with torch.no_grad():
        for p in stage.network.parameters():
            if p.grad is not None:
                p -= 0.1 * p.grad
    assert objective.network_loss(make_context(stage)) < first


def test_before_its_start_the_target_is_not_even_looked_at():
    stage = make_stage()
    objective = Entropy(EntropyConfig(start_step=3), stage)
    calls = []
    early = make_context(stage, step=2, forward=lambda pictures: calls.append(pictures))
    loss = objective.network_loss(early)
    loss.backward()
    assert loss.item() == 0.0 and not calls
    assert objective.network_loss(make_context(stage, step=3)).item() > 0.0
