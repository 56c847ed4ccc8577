"""Cross-entropies on made labels: of the target, of mixed pictures, of masked ones."""

import math

import numpy as np
import pytest
import torch
from training.settings import make_context, make_stage, with_fields

from rtda_deploy.errors import ConfigError
from rtda_training.adapt.context import MixedBatch, PseudoLabels
from rtda_training.adapt.objectives.masked import Masked, MaskedConfig
from rtda_training.adapt.objectives.mixed import Mixed
from rtda_training.adapt.objectives.pseudo import LabelledTermConfig, Pseudo
from rtda_training.labels import IGNORE_INDEX

PLAIN = {"jitter": 0.0, "blur_probability": 0.0}  # pictures as they are, but for the mask


class FixedLabeler:
    """Says what it was told to say; counts how often it is asked."""

    def __init__(self, label, weight=None):
        self.answer, self.asked = PseudoLabels(label, weight), 0

    def label(self, context):
        self.asked += 1
        return self.answer


class FixedMixer:
    def __init__(self, batch):
        self.batch = batch

    def mix(self, context):
        return self.batch


@pytest.fixture
def stage():
    return make_stage()


def some_labels(seed=0, ignored=0.3):
    rng = np.random.default_rng(seed)
    label = rng.integers(5, size=(2, 64, 64))
    label[rng.random(label.shape) < ignored] = IGNORE_INDEX
    return torch.from_numpy(label), torch.from_numpy(rng.random(label.shape)).float()


def looped(logits, label, weight):
    """Weighted cross-entropy over labelled pixels, pixel by pixel."""
    log_p = torch.log_softmax(logits.double(), 1).detach().numpy()
    total, count = 0.0, 0
    for n, y, x in zip(*np.nonzero(label.numpy() != IGNORE_INDEX)):
        total -= (1.0 if weight is None else float(weight[n, y, x])) * log_p[n, label[n, y, x], y, x]
        count += 1
    return total / count


@pytest.mark.parametrize("weighted", [False, True])
def test_pseudo_is_the_weighted_cross_entropy_of_all_heads(stage, weighted):
    label, weight = some_labels()
    weight = weight if weighted else None
    context = make_context(stage, labeler=FixedLabeler(label, weight))
    loss = Pseudo(LabelledTermConfig(weight=0.7), stage).network_loss(context)
    output = context.target_output()
    main, *aux = (looped(logits, label, weight) for logits in (output.logits, *output.aux))
    assert loss.item() == pytest.approx(0.7 * (main + 0.5 * sum(aux)), rel=1e-5)  # the network's own aux weight is 0.5


def test_the_weight_of_auxiliary_heads_can_be_chosen(stage):
    label, _ = some_labels()
    context = make_context(stage, labeler=FixedLabeler(label))
    loss = Pseudo(LabelledTermConfig(aux_weight=0.0), stage).network_loss(context)
    assert loss.item() == pytest.approx(looped(context.target_output().logits, label, None), rel=1e-5)


def test_mixed_reads_the_mixers_pictures_and_labels(stage):
    label, weight = some_labels(1)
    pictures = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    seen = []

    def forward(batch):
        seen.append(batch)
        return stage.network(batch)

    context = make_context(stage, mixer=FixedMixer(MixedBatch(pictures, label, weight)), forward=forward)
    loss = Mixed(LabelledTermConfig(weight=2.0, aux_weight=0.0), stage).network_loss(context)
    assert len(seen) == 1 and seen[0] is pictures
    assert loss.item() == pytest.approx(2.0 * looped(context.mixed_output().logits, label, weight), rel=1e-5)


def objectives_on(stage, label, weight=None):
    mixer = FixedMixer(MixedBatch(torch.randn(2, 3, 64, 64), label, weight))
    made = (
        Pseudo(LabelledTermConfig(), stage),
        Mixed(LabelledTermConfig(), stage),
        Masked(MaskedConfig(), stage),
    )
    return [(objective, {"labeler": FixedLabeler(label, weight), "mixer": mixer}) for objective in made]


@pytest.mark.parametrize("place", range(3))
def test_a_batch_without_any_label_costs_nothing(stage, place):
    objective, parts = objectives_on(stage, torch.full((2, 64, 64), IGNORE_INDEX))[place]
    loss = objective.network_loss(make_context(stage, **parts))
    loss.backward()
    assert loss.item() == 0.0
    assert all(p.grad is None or not p.grad.any() for p in stage.network.parameters())


@pytest.mark.parametrize("place", range(3))
def test_labels_without_weight_cost_nothing_and_labels_with_it_reach_the_network(stage, place):
    label, weight = some_labels()
    objective, parts = objectives_on(stage, label, torch.zeros_like(weight))[place]
    assert objective.network_loss(make_context(stage, **parts)).item() == 0.0
    objective, parts = objectives_on(stage, label, weight)[place]
    objective.network_loss(make_context(stage, **parts)).backward()
    assert any(p.grad is not None and p.grad.any() for p in stage.network.parameters())


@pytest.mark.parametrize("place", range(3))
def test_two_processes_together_have_the_loss_of_one(stage, place):
    """Half of the labels are on one process, a few on the other; the mean must not be of the means."""
    network = stage.network.eval()  # batch norms would tell one picture from two
    label, weight = some_labels()
    label[1, 4:] = IGNORE_INDEX
    objective, parts = objectives_on(stage, label, weight)[place]
    whole = objective.network_loss(make_context(stage, **parts))
    count = (label != IGNORE_INDEX).sum().float()
    losses = []
    for rank in range(2):
        one = slice(rank, rank + 1)
        half = {"labeler": FixedLabeler(label[one], weight[one])}
        mixed = parts["mixer"].batch
        half["mixer"] = FixedMixer(MixedBatch(mixed.pictures[one], label[one], weight[one]))
        full = make_context(stage)
        context = make_context(
            stage,
            source_frames=full.source_frames[one],
            label=full.label[one],
            target_frames=full.target_frames[one],
            first_place=rank,
            share=lambda value: count / 2,
            forward=network,
            **half,
        )
        losses.append(objective.network_loss(context))
    torch.testing.assert_close(sum(losses) / 2, whole)


def shown_to(stage, config=None, step=0, **changes):
    """What the network sees of the target under the mask, and the target itself."""
    seen = []

    def forward(pictures):
        seen.append(pictures)
        return stage.network(pictures)

    label, _ = some_labels()
    context = make_context(stage, step=step, labeler=FixedLabeler(label), forward=forward, **changes)
    Masked(config or MaskedConfig(**PLAIN), stage).network_loss(context)
    assert len(seen) == 1
    return seen[0], context.target


def test_masked_pictures_are_the_targets_with_whole_blocks_at_0(stage):
    shown, target = shown_to(stage, MaskedConfig(block=16, **PLAIN))
    hidden = 0
    for n in range(2):
        for y in range(0, 64, 16):
            for x in range(0, 64, 16):
                block = shown[n, :, y : y + 16, x : x + 16]
                if block.any():
                    assert torch.equal(block, target[n, :, y : y + 16, x : x + 16])
                else:
                    hidden += 1
    assert 0 < hidden < 32
    assert not torch.equal(shown[0] == 0, shown[1] == 0)  # each picture has a mask of its own


@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.7, 1.0])
def test_the_ratio_is_the_share_that_is_hidden(ratio):
    stage = make_stage(size_hw=(256, 256), pictures=2)
    frames = torch.full((2, 256, 256, 3), 200.0)
    label = torch.zeros(2, 256, 256, dtype=torch.long)
    seen = []
    context = make_context(stage, target_frames=frames, labeler=FixedLabeler(label))
    context.forward = lambda pictures: seen.append(pictures) or stage.network(pictures)
    Masked(MaskedConfig(block=4, ratio=ratio, **PLAIN), stage).network_loss(context)
    share = float((seen[0] == 0).float().mean())
    assert share == pytest.approx(ratio, abs=0.03 if 0 < ratio < 1 else 0)  # 8192 blocks: 5 standard deviations


@pytest.mark.parametrize(("size_hw", "side"), [((512, 1024), 64), ((1024, 2048), 64), ((256, 512), 32), ((64, 64), 8)])
def test_blocks_follow_the_inputs_size(size_hw, side):
    stage = with_fields(make_stage(), size_hw=size_hw)
    assert Masked(MaskedConfig(), stage).block == side
    assert Masked(MaskedConfig(block=48), stage).block == 48


def test_a_block_larger_than_the_input_is_refused(stage):
    with pytest.raises(ConfigError, match="64x64"):
        Masked(MaskedConfig(block=65), stage)


def test_masks_depend_on_step_and_place_in_the_global_batch_alone(stage):
    one, _ = shown_to(stage)
    again, _ = shown_to(stage)
    later, _ = shown_to(stage, step=1)
    assert torch.equal(one, again) and not torch.equal(one, later)
    frames = make_context(stage).target_frames
    second, _ = shown_to(stage, first_place=1, target_frames=frames.flip(0))  # its first picture is the second above
    assert torch.equal(second[0], one[1])


@pytest.mark.parametrize("change", [{"jitter": 0.5, "jitter_probability": 1.0}, {"blur_probability": 1.0}])
def test_pictures_change_before_they_are_masked(stage, change):
    plain, _ = shown_to(stage)
    other, _ = shown_to(stage, MaskedConfig(**{**PLAIN, **change}))
    assert torch.equal(plain == 0, other == 0)  # the same mask, its edges sharp
    assert not torch.allclose(plain, other, atol=0.05)
    assert other.min() >= -1.0 and other.max() <= 1.0  # 0..255 before normalisation


def test_the_labeler_sees_the_plain_target_and_batch_norms_do_not_remember_masked_pictures(stage):
    label, _ = some_labels()
    labeler = FixedLabeler(label)
    context = make_context(stage, labeler=labeler)
    before = context.target_frames.clone()
    norm = stage.network.backbone.layer1[1]
    remembered = norm.running_mean.clone(), norm.running_var.clone()
    Masked(MaskedConfig(), stage).network_loss(context)
    assert torch.equal(context.target_frames, before) and labeler.asked == 1
    assert torch.equal(norm.running_mean, remembered[0]) and torch.equal(norm.running_var, remembered[1])
    assert norm.momentum == 0.1
    context.target_output()
    assert not torch.equal(norm.running_mean, remembered[0])


def test_batch_norms_remember_again_even_after_a_failure(stage):
    def broken(pictures):
        raise ArithmeticError

    context = make_context(stage, labeler=FixedLabeler(some_labels()[0]), forward=broken)
    with pytest.raises(ArithmeticError):
        Masked(MaskedConfig(), stage).network_loss(context)
    assert stage.network.backbone.layer1[1].momentum == 0.1


@pytest.mark.parametrize("place", range(3))
def test_losses_are_float32_and_finite_under_bf16(place):
    stage = make_stage(precision="bf16")
    forward = stage.fabric.setup_module(stage.network)
    label, weight = some_labels()
    objective, parts = objectives_on(stage, label, weight)[place]
    loss = objective.network_loss(make_context(stage, forward=forward, **parts))
    stage.fabric.backward(loss)
    assert loss.dtype == torch.float32 and math.isfinite(loss.item())
    assert any(p.grad is not None and p.grad.any() for p in stage.network.parameters())
