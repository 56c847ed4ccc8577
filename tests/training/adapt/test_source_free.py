"""Class-balanced labels, negative learning and ClassMix between target pictures, by hand."""

import copy

import numpy as np
import pytest
import torch
from training.settings import make_context, make_stage, with_fields

from rtda_deploy.errors import ConfigError
from rtda_training.adapt.context import PseudoLabels
from rtda_training.adapt.labelers.balanced import BalancedConfig, BalancedLabeler
from rtda_training.adapt.mixers.classmix_target import ClassMixTarget, ClassMixTargetConfig
from rtda_training.adapt.objectives.negative import Negative, NegativeConfig, ranks
from rtda_training.models import SegOutput

PLAIN = {"jitter": 0.0, "blur_probability": 0.0}


class Says(torch.nn.Module):
    """A network that gives these logits whatever it sees."""

    def __init__(self, logits):
        super().__init__()
        self.logits = torch.nn.Parameter(logits)

    def forward(self, pictures):
        return SegOutput(self.logits, self.logits, (), ())


def random_logits(seed=0, classes=5, size=16):
    return 3.0 * torch.randn(2, classes, size, size, generator=torch.Generator().manual_seed(seed))


# labels


def test_the_surest_share_of_each_class_is_labelled_rare_ones_too():
    logits = random_logits()
    logits[:, 4] -= 4.0  # rare, and never sure
    stage = make_stage(network=Says(logits))
    labels = BalancedLabeler(BalancedConfig(share=0.25), stage).label(make_context(stage))
    confidence, predicted = logits.softmax(dim=1).max(dim=1)
    assert labels.weight is None and 0 < (predicted == 4).sum() < 40
    for index in range(5):
        own = predicted == index
        kept = labels.label == index
        assert int(kept.sum()) == pytest.approx(0.25 * int(own.sum()), abs=2 + 0.02 * int(own.sum()))
        assert confidence[kept].min() >= confidence[own & ~kept].max() - 1e-3
    assert set(labels.label[labels.label != predicted].unique().tolist()) == {255}


def test_thresholds_are_those_of_all_steps_of_the_round():
    stage = make_stage(network=Says(random_logits()), steps=10)
    labeler = BalancedLabeler(BalancedConfig(share=0.5, rounds=2), stage)
    labeler.label(make_context(stage, 0))
    with torch.no_grad():
        labeler.teacher.logits *= 0.1  # unsure: nearly none of it is among the surest half of both
    unsure = labeler.label(make_context(stage, 1))
    assert (unsure.label != 255).float().mean() < 0.1


def test_the_labelling_network_stands_still_for_a_round_and_is_renewed_then():
    stage = make_stage(network=Says(random_logits()), steps=10)
    labeler = BalancedLabeler(BalancedConfig(share=1.0, rounds=2), stage)
    first = labeler.label(make_context(stage, 0)).label
    with torch.no_grad():
        stage.network.logits.copy_(random_logits(1))
    assert torch.equal(labeler.label(make_context(stage, 4)).label, first)
    renewed = labeler.label(make_context(stage, 5)).label
    assert torch.equal(renewed, random_logits(1).argmax(dim=1))
    again = BalancedLabeler(BalancedConfig(share=1.0, rounds=2), make_stage(network=Says(random_logits(2)), steps=10))
    again.load_state_dict(copy.deepcopy(labeler.state_dict()))
    assert torch.equal(again.label(make_context(stage, 6)).label, renewed)
    assert labeler.after_step(make_context(stage, 5))["pseudo_share"] == 1.0


# what it is not


def test_negative_learning_lowers_a_middling_class_and_never_the_likeliest():
    assert ranks(19, NegativeConfig()) == list(range(6, 13)) and ranks(7, NegativeConfig()) == [2, 3, 4]
    assert ranks(2, NegativeConfig()) == [1] and 0 not in ranks(5, NegativeConfig(middle=0.0, spread=0.5))
    logits = random_logits()
    stage = make_stage(network=Says(logits))
    objective = Negative(NegativeConfig(middle=0.5, spread=0.0, weight=2.0), stage)
    loss = objective.network_loss(make_context(stage))
    third = logits.softmax(dim=1).sort(dim=1, descending=True).values[:, 2]
    assert float(loss.detach()) == pytest.approx(float(-2.0 * (1.0 - third).log().mean()), rel=1e-5)
    loss.backward()
    chosen = logits.argsort(dim=1, descending=True)
    gradient = stage.network.logits.grad.gather(1, chosen)
    assert (gradient[:, 2] > 0).all() and (gradient[:, [0, 1, 3, 4]] < 0).all()


# mixing


class Labels:
    def __init__(self, label, weight=None, soft=None):
        self._labels = PseudoLabels(label, weight, soft)

    def label(self, context):
        return self._labels


def mixed(weight=None, soft=None):
    stage = make_stage()
    label = torch.as_tensor(np.repeat([[0, 1, 2, 3], [4, 4, 255, 255]], 16, axis=1)).long()[:, None].expand(-1, 64, -1)
    frames = torch.stack([torch.full((64, 64, 3), 10.0), torch.full((64, 64, 3), 200.0)])
    context = make_context(
        stage,
        label=torch.empty(0, 64, 64).long(),
        source_frames=torch.empty(0, 64, 64, 3),
        target_frames=frames,
        labeler=Labels(label, weight, soft),
        normalise=lambda pictures: pictures.permute(0, 3, 1, 2),
    )
    return label, ClassMixTarget(ClassMixTargetConfig(**PLAIN), stage).mix(context)


def test_half_of_the_classes_of_a_target_picture_lie_on_the_one_before_it_and_no_source_is_needed():
    label, found = mixed()
    foreign = [found.pictures[0, 0] == 200.0, found.pictures[1, 0] == 10.0]
    assert torch.equal(foreign[0], label[1] == 4), "its only class; what has no label is not pasted"
    assert foreign[1].sum() == 2 * 64 * 16, "two of four bands"
    for place, other in ((0, 1), (1, 0)):
        assert torch.equal(found.label[place], torch.where(foreign[place], label[other], label[place]))
    assert found.weight is None


def test_pasted_pixels_keep_the_weight_of_their_own_labels():
    weight = torch.stack([torch.full((64, 64), 0.25), torch.full((64, 64), 0.75)])
    _, found = mixed(weight)
    foreign = found.pictures[0, 0] == 200.0
    assert torch.equal(found.weight[0], torch.where(foreign, 0.75, 0.25))


def test_pasted_pixels_keep_the_probabilities_of_their_own_labels():
    soft = torch.randn(2, 5, 64, 64).softmax(1)
    _, found = mixed(soft=soft)
    foreign = found.pictures[0, 0] == 200.0
    assert torch.equal(found.soft[0], torch.where(foreign, soft[1], soft[0]))


def test_a_batch_of_one_cannot_be_mixed():
    with pytest.raises(ConfigError, match="batches have one"):
        ClassMixTarget(ClassMixTargetConfig(), with_fields(make_stage(), batch_size=1))
