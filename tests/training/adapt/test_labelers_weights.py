"""How the mean teacher's labels count: a threshold relative to the source, soft weights, a ramp, aligned priors."""

import copy

import numpy as np
import pytest
import torch
from training.settings import make_context, make_stage

from rtda_training.adapt.labelers.ema import EmaConfig, EmaLabeler
from rtda_training.adapt.labelers.priors import ClassPriors

C = 5


@pytest.fixture
def stage():
    return make_stage(C)


def ema(stage, **config):
    """A teacher of spread confidences."""
    labeler = EmaLabeler(EmaConfig(**config), stage)
    labeler.teacher.head.weight.mul_(8.0)
    return labeler


def answers(labeler, context):
    return labeler.teacher(context.target).logits.detach().softmax(1).max(dim=1)


def test_a_relative_threshold_is_a_share_of_the_mean_confidence_on_the_source(stage):
    labeler = ema(stage, threshold=0.9, relative=True, weighting="pixel")
    context = make_context(stage, share=lambda value: value * 1.1)  # another process is surer
    confidence, label = answers(labeler, context)
    found = labeler.label(context).label
    limit = 0.9 * 1.1 * copy.deepcopy(stage.network)(context.source).logits.softmax(1).amax(1).mean()
    assert 0.05 < (confidence >= limit).float().mean() < 0.95
    assert torch.equal(found, torch.where(confidence >= limit, label, 255))


def test_a_relative_threshold_leaves_the_shared_forward_on_the_source_its_gradient(stage):
    calls = []

    def forward(pictures):
        calls.append(1)
        return stage.network(pictures)

    context = make_context(stage, forward=forward)
    labels = ema(stage, relative=True).label(context)
    assert context.source_output().logits.requires_grad and not labels.weight.requires_grad
    assert calls == [1]


def test_soft_weights_are_the_confidences_of_the_labels_that_count(stage):
    labeler = ema(stage, threshold=0.3, weighting="soft")
    context = make_context(stage)
    confidence, label = answers(labeler, context)
    found = labeler.label(context)
    assert torch.equal(found.label, torch.where(confidence >= 0.3, label, 255))
    torch.testing.assert_close(found.weight, confidence)


@pytest.mark.parametrize("weighting", ["fraction", "pixel", "soft"])
def test_the_ramp_rises_along_half_a_cosine_to_its_share_of_the_steps(stage, weighting):
    plain = ema(stage, threshold=0.0, weighting=weighting).label(make_context(stage)).weight
    full = torch.ones(2, 64, 64) if plain is None else plain
    for step, factor in ((0, 0.0), (2, 0.345492), (4, 0.904508), (5, 1.0), (9, 1.0)):  # of 10 steps, half is the ramp
        labels = ema(stage, threshold=0.0, weighting=weighting, ramp=0.5).label(make_context(stage, step))
        torch.testing.assert_close(labels.weight, factor * full, rtol=1e-5, atol=1e-6)


def probabilities(*shares):
    """(1, C, 8, 8): the same answer everywhere."""
    return torch.tensor(shares)[None, :, None, None].expand(1, len(shares), 8, 8)


def test_priors_turn_an_answer_given_too_often_into_the_one_that_the_source_has():
    label = torch.tensor(np.repeat([0, 1], 32).reshape(1, 8, 8))  # half and half
    aligned = ClassPriors(2).align(probabilities(0.8, 0.2), label, lambda value: value)
    torch.testing.assert_close(aligned, probabilities(0.5, 0.5))
    assert torch.equal(
        ClassPriors(2, 0.0).align(probabilities(0.8, 0.2), label, lambda value: value).argmax(1).unique(),
        torch.tensor([0]),
    )


def test_priors_are_averages_over_the_steps_and_255_is_no_class():
    priors = ClassPriors(2)
    for label, shares in (((0, 255), (0.6, 0.4)), ((1, 255), (0.2, 0.8))):
        priors.align(probabilities(*shares), torch.tensor(np.repeat(label, 32).reshape(1, 8, 8)), lambda value: value)
    torch.testing.assert_close(priors.source, torch.tensor([0.5, 0.5]))
    torch.testing.assert_close(priors.target, torch.tensor([0.4, 0.6]))


def test_a_step_without_labels_moves_no_prior_of_the_source_and_a_lost_class_gets_a_finite_factor():
    priors = ClassPriors(2)
    nothing = torch.full((1, 8, 8), 255)
    aligned = priors.align(probabilities(1.0, 0.0), nothing, lambda value: value)
    torch.testing.assert_close(priors.source, torch.tensor([0.5, 0.5]))
    assert aligned.isfinite().all()


def test_the_labeler_aligns_what_it_answers_and_keeps_the_priors_in_its_state(stage):
    label = torch.full((2, 64, 64), 3)
    context = make_context(stage, label=label)
    labeler = ema(stage, align=1.0, weighting="pixel", threshold=0.0)
    assert labeler.label(context).label.unique().tolist() == [3]  # the only class of the source
    assert not (answers(labeler, context)[1] == 3).all()
    again = ema(stage, align=1.0)
    again.load_state_dict(copy.deepcopy(labeler.state_dict()))
    torch.testing.assert_close(again._priors.source, labeler._priors.source)
    later = make_context(stage, 1)
    assert torch.equal(
        again._priors.align(probabilities(*[0.2] * C), later.label, later.share),
        labeler._priors.align(probabilities(*[0.2] * C), later.label, later.share),
    )


@pytest.mark.parametrize("weighting", ["pixel", "soft", "fraction"])
def test_a_teacher_may_give_the_probability_of_every_class(stage, weighting):
    context = make_context(stage)
    plain, whole = (ema(stage, weighting=weighting, threshold=0.3, teach=what) for what in ("class", "probabilities"))
    found = whole.label(context)
    assert plain.label(context).soft is None
    torch.testing.assert_close(found.soft, whole.teacher(context.target).logits.detach().softmax(1))
    assert torch.equal(found.label, plain.label(context).label)  # the threshold says still which pixels count
