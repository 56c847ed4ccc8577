"""What of the labelled domain counts: hard pixels, and classes by their frequency."""

import sys
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as functional
from training.settings import make_context, make_stage

from rtda_training.adapt.objectives.supervised import Supervised, SupervisedConfig

C = 5


def losses_by_hand(logits, label):
    """(pixels,) probabilities of the labels and their losses."""
    loss = functional.cross_entropy(logits, label, ignore_index=255, reduction="none")
    return torch.where(label == 255, torch.ones(()), (-loss).exp()).flatten().detach(), loss.flatten()


@pytest.mark.parametrize(("hardest", "easy"), [(0.1, 0.01), (0.3, 0.01), (0.1, 0.21)])
def test_the_hardest_share_counts_and_what_is_not_easy(hardest, easy):
    stage = make_stage(C)
    stage.network.head.weight.data.mul_(20.0)
    context = make_context(stage)
    context.label[:, :16] = 255
    probability, loss = losses_by_hand(context.source_output().logits, context.label)
    labelled = (context.label != 255).flatten()
    count = int(hardest * int(labelled.sum()))
    limit = max(probability[labelled].sort().values[count - 1].item(), easy)
    wanted = loss[labelled & (probability <= limit)]
    found = Supervised(SupervisedConfig(aux_weight=0.0, hardest=hardest, easy=easy), stage).network_loss(context)
    assert count <= len(wanted) < int(labelled.sum())
    torch.testing.assert_close(found, wanted.mean())


def test_hard_pixels_are_chosen_for_each_head_by_its_own_answer():
    stage = make_stage(C)
    context = make_context(stage)
    output = context.source_output()
    expected = torch.zeros(())
    for factor, logits in zip((1.0, 0.5, 0.5), (output.logits, *output.aux), strict=True):
        probability, loss = losses_by_hand(logits, context.label)
        limit = probability.sort().values[int(0.2 * probability.numel()) - 1]
        expected = expected + factor * loss[probability <= limit].mean()
    found = Supervised(SupervisedConfig(aux_weight=0.5, hardest=0.2, easy=0.01), stage).network_loss(context)
    torch.testing.assert_close(found, expected)
    found.backward()
    assert stage.network.head.weight.grad.abs().sum() > 0


def test_a_batch_without_labels_is_0_with_a_gradient():
    stage = make_stage(C)
    context = make_context(stage)
    context.label.fill_(255)
    loss = Supervised(SupervisedConfig(hardest=0.1), stage).network_loss(context)
    loss.backward()
    assert loss == 0 and stage.network.head.weight.grad.abs().sum() == 0


def test_rare_classes_weigh_by_the_root_of_their_frequency_and_a_pixel_1_on_average(monkeypatch):
    frequencies = [0.64, 0.16, 0.16, 0.04, 0.0]
    index = SimpleNamespace(index_of=lambda data: SimpleNamespace(frequencies=frequencies))
    monkeypatch.setitem(sys.modules, "rtda_training.data.index", index)
    stage = make_stage(C)
    context = make_context(stage)
    context.label[:, :16], context.label[:, 16:] = 255, context.label[:, 16:].clamp(max=3)
    factor = torch.tensor([1.25, 2.5, 2.5, 5.0, 0.0]) / (1.25 * 0.64 + 2.5 * 0.32 + 5.0 * 0.04)
    loss = losses_by_hand(context.source_output().logits, context.label)[1]
    label = context.label.flatten()
    wanted = (loss * factor[label.clamp(max=4)])[label != 255].mean()
    found = Supervised(SupervisedConfig(aux_weight=0.0, class_weights="frequency"), stage).network_loss(context)
    torch.testing.assert_close(found, wanted)
