"""The step's order: who learns from what, who is frozen, and that forwards are shared."""

import copy
import dataclasses

import pytest
import torch
import torch.nn.functional as functional
from training.settings import make_context, make_stage

from rtda_training.adapt.losses import SOURCE, TARGET, domain_loss, pixel_cross_entropy
from rtda_training.adapt.objectives.adversarial import Adversarial, AdversarialConfig, standardised
from rtda_training.adapt.objectives.supervised import Supervised, SupervisedConfig
from rtda_training.adapt.slots import components
from rtda_training.models import BiSeNet
from rtda_training.plan import StageConfig

# losses


@pytest.mark.parametrize("classes", [7, 19])  # fewer and more than a vector of the processor holds
def test_cross_entropy_equals_torch_with_ignored_pixels(classes):
    logits = torch.randn(2, classes, 8, 8).contiguous(memory_format=torch.channels_last)
    label = torch.randint(0, classes, (2, 8, 8))
    label[0, :3] = 255
    expected = functional.cross_entropy(logits, label, ignore_index=255)
    torch.testing.assert_close(pixel_cross_entropy(logits, label), expected)
    weight = torch.rand(2, 8, 8)
    each = functional.cross_entropy(logits, label, ignore_index=255, reduction="none")
    expected = (each * weight).sum() / (label != 255).sum()
    torch.testing.assert_close(pixel_cross_entropy(logits, label, weight), expected)


def test_a_batch_without_labels_gives_zero_and_a_zero_gradient():
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss = pixel_cross_entropy(logits, torch.full((1, 4, 4), 255))
    loss.backward()
    assert loss.item() == 0.0 and logits.grad is not None and logits.grad.abs().sum() == 0


@pytest.mark.parametrize("weighted", [False, True])
def test_cross_entropy_of_probabilities_is_that_of_each_class_times_its_probability(weighted):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 5, generator=generator)
    soft = torch.randn(2, 3, 4, 5, generator=generator).softmax(1)
    label = torch.randint(0, 3, (2, 4, 5), generator=generator)
    label[0, :2] = 255
    weight = torch.rand(2, 4, 5, generator=generator) if weighted else None
    each = -(soft * logits.log_softmax(1)).sum(1) * (1.0 if weight is None else weight)
    found = pixel_cross_entropy(logits, label, weight, soft=soft)
    torch.testing.assert_close(found, each[label != 255].mean())
    certain = torch.nn.functional.one_hot(label.clamp(max=2), 3).permute(0, 3, 1, 2).float()
    torch.testing.assert_close(
        pixel_cross_entropy(logits, label, weight, soft=certain), pixel_cross_entropy(logits, label, weight)
    )
    assert pixel_cross_entropy(logits, torch.full_like(label, 255), weight, soft=soft) == 0
    halves = pixel_cross_entropy(logits, label, weight, share=lambda count: 2 * count, soft=soft)
    torch.testing.assert_close(2 * halves, found)  # the count is that of all processes


def test_domain_loss_is_binary_cross_entropy_of_one_logit():
    logits = torch.tensor([[[[2.0]]]])
    torch.testing.assert_close(domain_loss(logits, TARGET), functional.softplus(torch.tensor(-2.0)))
    torch.testing.assert_close(domain_loss(logits, SOURCE), functional.softplus(torch.tensor(2.0)))


# objectives


@pytest.fixture(scope="module")
def stage():
    torch.manual_seed(0)
    return make_stage(5, network=BiSeNet("resnet18", "rtda", num_classes=5))


@pytest.fixture
def network(stage):
    stage.network.zero_grad()
    return stage.network


@pytest.fixture
def context(stage, network):
    calls = []

    def forward(pictures):
        calls.append(pictures)
        return network(pictures)

    made = make_context(stage, forward=forward)
    made.target_frames = 3 * made.target_frames + 100  # another domain, without doubt
    made.calls = calls
    return made


@pytest.fixture
def adversary(stage):
    torch.manual_seed(1)
    return Adversarial(AdversarialConfig(weight=0.5), stage)


def gradients(module):
    return [p.grad for p in module.parameters() if p.grad is not None]


def test_the_networks_step_leaves_the_discriminator_alone(context, network, adversary):
    adversary.network_loss(context).backward()
    assert gradients(adversary.discriminator) == []
    assert all(p.requires_grad for p in adversary.discriminator.parameters())
    assert any(g.abs().sum() > 0 for g in gradients(network))


@pytest.mark.parametrize("gan", ["bce", "ls"])
def test_the_network_is_asked_to_make_target_look_like_source(context, stage, gan):
    adversary = Adversarial(AdversarialConfig(weight=0.5, gan=gan), stage)
    loss = adversary.network_loss(context)
    with torch.no_grad():
        logits = adversary.discriminator(context.target_output().logits.softmax(1))
    torch.testing.assert_close(loss.detach(), 0.5 * domain_loss(logits, SOURCE, gan))


def test_the_discriminators_step_leaves_the_network_alone_and_learns_the_domains(context, network, adversary):
    first = adversary.play(context, 1.0)
    assert gradients(network) == []
    assert first["disc"] == pytest.approx(0.693, abs=0.05)
    for _ in range(120):
        last = adversary.play(context, 100.0)
    assert last["disc"] < 0.7 * first["disc"] and last["disc_right"] > 0.8


def test_the_discriminators_rate_follows_the_schedule(context, adversary):
    before = [p.detach().clone() for p in adversary.discriminator.parameters()]
    adversary.play(context, 0.0)
    assert all(torch.equal(p, old) for p, old in zip(adversary.discriminator.parameters(), before))


def test_forwards_are_computed_once_per_domain_and_shared(context, stage, adversary):
    Supervised(SupervisedConfig(), stage).network_loss(context)
    adversary.network_loss(context)
    adversary.play(context, 1.0)
    assert len(context.calls) == 2
    assert context.calls[0] is context.source and context.calls[1] is context.target


def test_supervised_is_the_sum_of_three_heads(context, stage):
    output = context.source_output()
    expected = sum(functional.cross_entropy(logits, context.label) for logits in (output.logits, *output.aux))
    torch.testing.assert_close(Supervised(SupervisedConfig(), stage).network_loss(context), expected)


def test_auxiliary_heads_weigh_what_their_network_says_unless_the_recipe_says_otherwise():
    stage = make_stage()  # its auxiliary heads weigh 0.5
    context = make_context(stage)
    main, *aux = (
        functional.cross_entropy(logits, context.label)
        for logits in (context.source_output().logits, *context.source_output().aux)
    )
    for asked, used in ((-1.0, 0.5), (0.0, 0.0), (0.2, 0.2)):
        loss = Supervised(SupervisedConfig(aux_weight=asked), stage).network_loss(context)
        torch.testing.assert_close(loss, main + used * sum(aux))


def test_an_adversary_goes_on_from_its_state(context, stage, adversary):
    adversary.play(context, 1.0)
    twin = Adversarial(AdversarialConfig(weight=0.5), stage)
    twin.load_state_dict(copy.deepcopy(adversary.state_dict()))
    assert twin.play(context, 1.0) == adversary.play(context, 1.0)
    for one, other in zip(adversary.discriminator.parameters(), twin.discriminator.parameters()):
        assert torch.equal(one, other)


def test_a_stage_builds_what_it_names(stage):
    config = StageConfig(objectives=("supervised", "adversarial"))
    found = config.used()
    made = [found[key](config.settings[key], stage) for key in config.objectives]
    assert [objective.log_name for objective in made] == ["seg", "adv"]
    assert [type(objective) for objective in made] == [Supervised, Adversarial]


@pytest.mark.parametrize("key", sorted(components("objectives")))
def test_every_objective_documents_itself_and_its_settings(key):
    found = components("objectives")[key]
    assert found.__doc__ and "Source: " in found.__doc__
    assert found.settings.__doc__ and not found.settings.__doc__.startswith(found.settings.__name__ + "(")
    assert dataclasses.is_dataclass(found.settings)
    found.settings()  # its defaults are values it allows


def test_no_two_objectives_share_a_name_in_the_log():
    names = [found.log_name or key for key, found in components("objectives").items()]
    assert len(set(names)) == len(names)


def test_objectives_say_what_they_need():
    found = components("objectives")
    asks_target = {key for key, kind in found.items() if kind.needs_target}
    assert asks_target >= {"adversarial", "advent", "entropy", "pseudo", "mixed", "masked", "alignment"}
    assert not asks_target & {"supervised", "feature-distance"}
    assert {key: set(found[key].requires) for key in ("pseudo", "masked", "mixed")} == {
        "pseudo": {"labeler"},
        "masked": {"labeler"},
        "mixed": {"mixer", "labeler"},
    }


# what the adversary sees, and when the network hears of it


def test_logits_are_shown_with_mean_0_and_deviation_1_of_each_picture():
    logits = torch.randn(2, 5, 8, 8) * torch.tensor([3.0, 50.0]).view(2, 1, 1, 1) + 7
    seen = standardised(logits.bfloat16())
    assert seen.dtype == torch.float32
    torch.testing.assert_close(seen.mean(dim=(1, 2, 3)), torch.zeros(2), atol=1e-4, rtol=0)
    torch.testing.assert_close(seen.flatten(1).std(dim=1), torch.ones(2), atol=1e-4, rtol=0)
    assert torch.isfinite(standardised(torch.zeros(1, 5, 8, 8))).all()


def test_an_adversary_shows_what_it_was_asked_to(stage):
    logits = torch.randn(1, 5, 8, 8) * 9
    views = {sees: Adversarial(AdversarialConfig(sees=sees), stage).view(logits) for sees in ("softmax", "logits")}
    torch.testing.assert_close(views["softmax"], torch.softmax(logits, dim=1))
    torch.testing.assert_close(views["logits"], standardised(logits))


def test_the_network_hears_nothing_before_the_start_step_while_the_discriminator_learns(context, network, stage):
    late = Adversarial(AdversarialConfig(start_step=1, learning_rate=0.01), stage)
    before = copy.deepcopy(late.discriminator.state_dict())
    loss = late.network_loss(context)
    loss.backward()
    assert loss.item() == 0.0 and all(p.grad is None or not p.grad.any() for p in network.parameters())
    assert "target" in context._outputs, "the forward is made all the same: batch norms see the target"
    late.play(context, 1.0)
    assert any(not torch.equal(before[name], value) for name, value in late.discriminator.state_dict().items())
    heard = dataclasses.replace(context, step=1)
    late.network_loss(heard).backward()
    assert any(p.grad is not None and p.grad.any() for p in network.parameters())
