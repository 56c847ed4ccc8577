"""The step's order: who learns from what, who is frozen, and that forwards are shared."""

import copy

import pytest
import torch

from rtda_training.adapt.context import StepContext
from rtda_training.adapt.objectives import Adversarial, Supervised, build_objectives
from rtda_training.hardware import build_fabric
from rtda_training.losses import SOURCE, domain_loss
from rtda_training.models import BiSeNet
from rtda_training.plan import AdversarialConfig, StageConfig


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return BiSeNet("resnet18", "rtda", num_classes=5).train()


@pytest.fixture
def context(network):
    network.zero_grad()
    torch.manual_seed(2)
    calls = []

    def forward(pictures):
        calls.append(pictures)
        return network(pictures)

    made = StepContext(
        step=0,
        source=torch.randn(2, 3, 64, 64),
        label=torch.randint(0, 5, (2, 64, 64)),
        target=3 * torch.randn(2, 3, 64, 64) + 1,
        forward=forward,
    )
    made.calls = calls
    return made


@pytest.fixture
def adversary():
    torch.manual_seed(1)
    return Adversarial(AdversarialConfig(weight=0.5), 5, build_fabric("cpu", "fp32"))


def gradients(module):
    return [p.grad for p in module.parameters() if p.grad is not None]


def test_the_networks_step_leaves_the_discriminator_alone(context, network, adversary):
    adversary.network_loss(context).backward()
    assert gradients(adversary._discriminator) == []
    assert all(p.requires_grad for p in adversary._discriminator.parameters())
    assert any(g.abs().sum() > 0 for g in gradients(network))


def test_the_network_is_asked_to_make_target_look_like_source(context, adversary):
    loss = adversary.network_loss(context)
    with torch.no_grad():
        logits = adversary._discriminator(context.target_output().logits.softmax(1))
    torch.testing.assert_close(loss.detach(), 0.5 * domain_loss(logits, SOURCE))


def test_the_discriminators_step_leaves_the_network_alone_and_learns_the_domains(context, network, adversary):
    first = adversary.play(context, 1.0)
    assert gradients(network) == []
    assert first["disc"] == pytest.approx(0.693, abs=0.05)
    for _ in range(120):
        last = adversary.play(context, 100.0)
    assert last["disc"] < 0.7 * first["disc"] and last["disc_right"] > 0.8


def test_forwards_are_computed_once_per_domain_and_shared(context, adversary):
    Supervised().network_loss(context)
    adversary.network_loss(context)
    adversary.play(context, 1.0)
    assert len(context.calls) == 2
    assert context.calls[0] is context.source and context.calls[1] is context.target


def test_supervised_is_the_sum_of_three_heads(context, network):
    output = context.source_output()
    expected = sum(torch.nn.functional.cross_entropy(logits, context.label) for logits in (output.logits, *output.aux))
    torch.testing.assert_close(Supervised().network_loss(context), expected)


def test_an_adversary_goes_on_from_its_state(context, adversary):
    adversary.play(context, 1.0)
    twin = Adversarial(AdversarialConfig(weight=0.5), 5, build_fabric("cpu", "fp32"))
    twin.load_state_dict(copy.deepcopy(adversary.state_dict()))
    assert twin.play(context, 1.0) == adversary.play(context, 1.0)
    for one, other in zip(adversary._discriminator.parameters(), twin._discriminator.parameters()):
        assert torch.equal(one, other)


def test_a_stage_builds_what_it_names():
    stage = StageConfig(objectives=("supervised", "adversarial"))
    names = [objective.name for objective in build_objectives(stage, 19, build_fabric("cpu", "fp32"))]
    assert names == ["seg", "adv"]
