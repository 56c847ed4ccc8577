"""Terms on features: PFR's alignment of both domains, DAFormer's distance to the start."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from training.settings import make_context, make_stage

from rtda_deploy.errors import ConfigError
from rtda_training.adapt.objectives.alignment import Alignment, AlignmentConfig, gram
from rtda_training.adapt.objectives.distance import FeatureDistance, FeatureDistanceConfig, filled
from rtda_training.labels import CAMVID, CITYSCAPES, IGNORE_INDEX, ClassList
from rtda_training.models import SegOutput
from rtda_training.plan import plan_from_table

SHAPES = ((2, 3, 4, 5), (2, 4, 2, 3), (2, 5, 2, 2), (2, 6, 1, 2))  # of the four stages


def some_features(seed, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.rand(shape, generator=generator).to(dtype).requires_grad_() for shape in SHAPES)


def context_of(stage, source, target):
    """A step whose network gives these features of the two domains."""
    made = make_context(stage)
    answers = {id(made.source): source, id(made.target): target}
    logits = torch.zeros(2, 5, 64, 64)
    made.forward = lambda pictures: SegOutput(logits, logits, (), answers[id(pictures)])
    return made


def gram_looped(features):
    """(C, H, W) -> (C, C) in float64, the definition."""
    features = features.detach().double().numpy()
    channels, height, width = features.shape
    made = np.zeros((channels, channels))
    for i in range(channels):
        for j in range(channels):
            for y in range(height):
                for x in range(width):
                    made[i, j] += features[i, y, x] * features[j, y, x]
    return made / (channels * height * width)


def aligned_looped(source, target, content="pixel", reduction="norm", parts=(1.0, 1.0), stages=(2, 3, 4, 5)):
    """Equations 2 to 4, picture by picture and stage by stage."""

    def reduced(difference):
        return np.sqrt((difference**2).sum()) if reduction == "norm" else (difference**2).mean()

    total = 0.0
    for stage in stages:
        for s, t in zip(source[stage - 2], target[stage - 2]):
            total += parts[1] * reduced(gram_looped(s) - gram_looped(t)) / len(source[0])
            s, t = s.detach().double().numpy(), t.detach().double().numpy()
            if content == "pooled":
                s, t = s.mean((1, 2)), t.mean((1, 2))
            total += parts[0] * reduced(s - t) / len(source[0])
    return total


@pytest.fixture(scope="module")
def stage():
    return make_stage()


def test_the_gram_matrix_is_that_of_a_loop():
    features = torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(0))
    expected = torch.from_numpy(np.stack([gram_looped(one) for one in features])).float()
    torch.testing.assert_close(gram(features), expected)


@pytest.mark.parametrize("content", ["pixel", "pooled"])
@pytest.mark.parametrize("reduction", ["norm", "mean-square"])
@pytest.mark.parametrize("stages", [(2, 3, 4, 5), (5,), (4, 2)])
def test_alignment_is_the_papers_formula(stage, content, reduction, stages):
    source, target = some_features(0), some_features(1)
    config = AlignmentConfig(
        weight=0.5, content=content, reduction=reduction, stages=stages, content_weight=0.3, style_weight=7.0
    )
    loss = Alignment(config, stage).network_loss(context_of(stage, source, target))
    expected = aligned_looped(source, target, content, reduction, (0.3, 7.0), stages)
    assert loss.item() == pytest.approx(0.5 * expected, rel=1e-5)


def test_the_default_is_the_formula_as_printed(stage):
    source, target = some_features(0), some_features(1)
    loss = Alignment(AlignmentConfig(), stage).network_loss(context_of(stage, source, target))
    assert loss.item() == pytest.approx(0.004 * aligned_looped(source, target), rel=1e-5)


def test_both_domains_features_move_unless_the_sources_are_held(stage):
    for held in (False, True):
        source, target = some_features(0), some_features(1)
        config = AlignmentConfig(detach_source=held)
        Alignment(config, stage).network_loss(context_of(stage, source, target)).backward()
        assert all(f.grad is not None and f.grad.any() for f in target)
        assert all((f.grad is None) == held for f in source)


@pytest.mark.parametrize("reduction", ["norm", "mean-square"])
def test_equal_features_cost_nothing_and_their_gradient_is_0(stage, reduction):
    source, target = some_features(0), some_features(0)
    loss = Alignment(AlignmentConfig(reduction=reduction), stage).network_loss(context_of(stage, source, target))
    loss.backward()
    assert loss.item() == 0.0
    assert all(not f.grad.any() for f in (*source, *target))  # a plain square root would give NaN


def test_alignment_computes_in_float32_under_autocast(stage):
    source, target = some_features(0, torch.bfloat16), some_features(1, torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        loss = Alignment(AlignmentConfig(), stage).network_loss(context_of(stage, source, target))
    assert loss.dtype == torch.float32
    rounded = [f.float() for f in source], [f.float() for f in target]
    assert loss.item() == pytest.approx(0.004 * aligned_looped(*rounded), rel=1e-5)


def test_alignment_brings_the_domains_together_on_a_real_network():
    stage = make_stage()
    objective = Alignment(AlignmentConfig(weight=1.0), stage)

    def step():
        context = make_context(stage)
        context.target_frames = 255.0 - context.target_frames
        return objective.network_loss(context)

    first = step()
    first.backward()
    with torch.no_grad():
        for p in stage.network.parameters():
            if p.grad is not None:
                p -= 1e-3 * p.grad
    assert step() < first


@pytest.mark.parametrize("stages", [[], [1], [6], [2, 2]])
def test_stages_that_are_not_there_are_refused(stages):
    with pytest.raises(ConfigError, match="stages"):
        AlignmentConfig(stages=tuple(stages))


def test_a_recipe_may_list_stages_and_things():
    plan = plan_from_table(
        {
            "target": "toytown:target",
            "objectives": ["supervised", "alignment", "feature-distance"],
            "alignment": {"stages": [4, 5], "content": "pooled"},
            "feature-distance": {"things": ["car"]},
        }
    )
    assert plan.stages[0].settings["alignment"] == AlignmentConfig(stages=(4, 5), content="pooled")
    assert plan.stages[0].settings["feature-distance"].things == ("car",)
    with pytest.raises(ConfigError, match="content"):
        plan_from_table({"target": "toytown:target", "alignment": {"content": "nonsense"}})


# feature distance


def street(*names):
    """A stage whose classes have these names, in this order."""
    classes = ClassList(names, tuple((i, i, i) for i in range(len(names))))
    return make_stage(len(names), classes=classes)


def test_a_cell_counts_where_one_thing_fills_enough_of_it():
    label = torch.zeros(1, 8, 16, dtype=torch.long)  # 8 cells of 4x4, class 0
    label[0, :4, :4] = 1  # full
    label[0, :3, 4:8] = 1  # 12 of 16: just enough
    label[0, :3, 8:12] = 1
    label[0, 0, 8] = 0  # 11 of 16
    label[0, :2, 12:16], label[0, 2:4, 12:16] = 1, 2  # two things that fill it together
    label[0, 4:, :4] = 2  # another thing
    label[0, 4:, 4:8] = 3  # no thing
    label[0, 4:, 8:12] = IGNORE_INDEX
    label[0, 4:, 12:16], label[0, 4, 12:16] = IGNORE_INDEX, 1  # all that is labelled, a quarter of the cell
    expected = torch.tensor([[[True, True, False, False], [True, False, False, False]]])
    assert torch.equal(filled(label, (1, 2), (2, 4), 0.75), expected)


def test_things_are_found_by_name():
    stage = make_stage(19, classes=CITYSCAPES)
    assert FeatureDistance(FeatureDistanceConfig(), stage).things == (6, 7, *range(11, 19))
    stage = make_stage(11, classes=CAMVID)
    assert FeatureDistance(FeatureDistanceConfig(), stage).things == (6, 8, 9, 10)
    stage = street("lane", "shuttle", "car")
    assert FeatureDistance(FeatureDistanceConfig(), stage).things == (2,)
    assert FeatureDistance(FeatureDistanceConfig(things=("shuttle",)), stage).things == (1,)


def test_things_that_are_not_there_are_refused():
    with pytest.raises(ConfigError, match="'tram'"):
        FeatureDistance(FeatureDistanceConfig(things=("car", "tram")), street("lane", "car"))
    with pytest.raises(ConfigError, match="lane, wall"):
        FeatureDistance(FeatureDistanceConfig(), street("lane", "wall"))


@pytest.fixture
def city():
    return street("road", "car", "person")


def label_with_car():
    label = torch.zeros(2, 64, 64, dtype=torch.long)
    label[0, :32, :32] = 1  # the first cell of 32x32
    label[1, 32:, 32:] = 2  # the last cell
    return label


def moved(network, by=0.1):
    """The network after some learning."""
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for p in network.backbone.parameters():
            p += by * torch.randn(p.shape, generator=generator)


def test_the_distance_is_that_of_the_last_stage_over_the_things_cells(city):
    objective = FeatureDistance(FeatureDistanceConfig(weight=0.5), city)
    start = copy.deepcopy(city.network.backbone)
    moved(city.network)
    context = make_context(city, label=label_with_car())
    loss = objective.network_loss(context)
    with torch.no_grad():
        now, then = context.source_output().features[-1], start(context.source)[-1]
    expected = [(now[n, :, y, x] - then[n, :, y, x]).square().sum().sqrt().item() for n, y, x in ((0, 0, 0), (1, 1, 1))]
    assert loss.item() == pytest.approx(0.5 * sum(expected) / 2, rel=1e-5)


@pytest.mark.parametrize("mode", ["batch", "fixed"])
def test_the_distance_starts_at_0_however_batch_norms_work(city, mode):
    objective = FeatureDistance(FeatureDistanceConfig(), city)
    if mode == "fixed":
        for module in city.network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
    loss = objective.network_loss(make_context(city, label=label_with_car()))
    loss.backward()
    assert loss.item() == 0.0
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in city.network.parameters())
    moved(city.network)
    assert objective.network_loss(make_context(city, label=label_with_car())).item() > 0.0


def test_only_the_network_learns_and_the_start_stays_what_it_was(city):
    objective = FeatureDistance(FeatureDistanceConfig(), city)
    before = copy.deepcopy(objective.state_dict()["start"])
    moved(city.network)
    objective.network_loss(make_context(city, label=label_with_car())).backward()
    assert any(p.grad is not None and p.grad.any() for p in city.network.backbone.parameters())
    assert all(p.grad is None and not p.requires_grad for p in objective.start.parameters())
    after = objective.state_dict()["start"]
    changed = [key for key in before if not torch.equal(before[key], after[key])]
    assert all(key.endswith("num_batches_tracked") for key in changed)


def test_no_thing_costs_nothing(city):
    objective = FeatureDistance(FeatureDistanceConfig(), city)
    moved(city.network)
    for label in (torch.zeros(2, 64, 64, dtype=torch.long), torch.full((2, 64, 64), IGNORE_INDEX)):
        loss = objective.network_loss(make_context(city, label=label))
        loss.backward()
        assert loss.item() == 0.0
    assert all(p.grad is None or not p.grad.any() for p in city.network.parameters())


def test_cells_are_averaged_over_all_processes(city):
    objective = FeatureDistance(FeatureDistanceConfig(), city)
    moved(city.network)
    alone = objective.network_loss(make_context(city, label=label_with_car()))
    shared = objective.network_loss(make_context(city, label=label_with_car(), share=lambda count: count / 2 + 3))
    torch.testing.assert_close(shared, alone * 2 / 4)  # its own 2 cells, of 4 on average


def test_a_resumed_distance_is_to_the_old_start(city):
    objective = FeatureDistance(FeatureDistanceConfig(), city)
    state = copy.deepcopy(objective.state_dict())
    moved(city.network)
    expected = objective.network_loss(make_context(city, label=label_with_car()))
    twin = FeatureDistance(FeatureDistanceConfig(), city)
    assert twin.network_loss(make_context(city, label=label_with_car())).item() == 0.0
    twin.load_state_dict(state)
    assert torch.equal(twin.network_loss(make_context(city, label=label_with_car())), expected)


@pytest.mark.parametrize("kind", ["alignment", "feature-distance"])
def test_losses_are_float32_and_finite_under_bf16(kind):
    names = ("road", "car", "person")
    stage = make_stage(3, precision="bf16", classes=ClassList(names, ((0, 0, 0),) * 3))
    if kind == "alignment":
        objective = Alignment(AlignmentConfig(), stage)
    else:
        objective = FeatureDistance(FeatureDistanceConfig(), stage)
        forward = stage.fabric.setup_module(copy.deepcopy(stage.network))
        start = objective.network_loss(make_context(stage, label=label_with_car(), forward=forward))
        assert start.item() == 0.0  # the copy computes in the network's precision
        moved(stage.network)
    forward = stage.fabric.setup_module(stage.network)
    loss = objective.network_loss(make_context(stage, label=label_with_car(), forward=forward))
    stage.fabric.backward(loss)
    assert loss.dtype == torch.float32 and math.isfinite(loss.item()) and loss.item() > 0
    assert any(p.grad is not None and p.grad.any() for p in stage.network.parameters())
