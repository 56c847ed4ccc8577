"""Every network goes with every objective, every map that objectives tap, and every labeler that runs networks."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from training.settings import make_context, make_stage

from rtda_deploy.spec import ModelSpec
from rtda_training.adapt.context import StageContext, StepContext
from rtda_training.adapt.slots import components
from rtda_training.checkpoint import Checkpoint, write_checkpoint
from rtda_training.labels import CITYSCAPES
from rtda_training.models import NETWORKS, SegmentationNetwork, build_network
from rtda_training.readers import LabelledSet
from rtda_training.stages.segmentation import reestimate

pytest.importorskip("cv2")
torch.set_num_threads(1)

CLASSES = 14  # of Cityscapes, with cars and people, which feature distance is about
NARROW = {"fcn8s": {"name": "FCN8s", "backbone": "vgg16", "hidden": 16}}
RUNNING_LABELERS = ("ema", "balanced", "offline", "network-labeler")  # the others read files


@pytest.fixture(scope="module", params=list(NETWORKS))
def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> StageContext:
    torch.manual_seed(5)
    network = build_network(NARROW.get(request.param, request.param), num_classes=CLASSES)
    side = max(64, network.size_multiple)
    folder = tmp_path_factory.mktemp(request.param)
    return make_stage(
        CLASSES, network=network, size_hw=(side, side), folder=folder, pictures=2, finished=lambda name: network.eval()
    )


def network_of(stage: StageContext) -> SegmentationNetwork:
    network = stage.network
    assert isinstance(network, SegmentationNetwork)
    return network


def settings_of(key: str, stage: StageContext) -> Any:
    """The usual ones, with what some cannot do without."""
    settings = components()[key].settings()
    if key == "offline":
        return dataclasses.replace(settings, stages=("before",), threshold=0.0)
    if key == "network-labeler":
        network = network_of(stage)
        names, palette = CITYSCAPES.names[:CLASSES], CITYSCAPES.palette[:CLASSES]
        spec = ModelSpec(
            size_hw=stage.size_hw,
            class_names=names,
            palette=palette,
            provenance={"architecture": network.architecture},
        )
        path = write_checkpoint(stage.run_folder / "teacher.pth", Checkpoint(spec, network.state_dict()))
        return components()[key].resolved(dataclasses.replace(settings, checkpoint=str(path)))
    return settings


def context_of(stage: StageContext) -> StepContext:
    """One step with a teacher, mixed pictures and labelled target frames."""
    parts = {key: components()[key] for key in ("ema", "classmix")}
    made: dict[str, Any] = {key: part(part.settings(), stage) for key, part in parts.items()}
    assert stage.source is not None
    labels = [torch.from_numpy(stage.source.label(place)).long() for place in range(2)]
    frames = [torch.from_numpy(stage.source.frame(place)).float() for place in range(2)]
    return make_context(
        stage,
        labeler=made["ema"],
        mixer=made["classmix"],
        labelled_frames=torch.stack(frames),
        labelled_label=torch.stack(labels),
    )


def test_every_objective_gives_a_finite_loss_that_teaches_the_network(stage: StageContext) -> None:
    network = network_of(stage).train()
    context = context_of(stage)
    losses: dict[str, Tensor] = {}
    made: list[Any] = []
    for key, part in components("objectives").items():
        objective: Any = part(settings_of(key, stage), stage)
        losses[key] = objective.network_loss(context)
        made.append(objective)
    assert {"adversarial", "alignment", "feature-distance", "supervised", "pseudo", "mixed"} <= set(losses)
    assert [key for key, loss in losses.items() if not bool(loss.isfinite())] == []
    network.zero_grad()
    torch.stack([loss.float() for loss in losses.values()]).sum().backward()  # type: ignore[no-untyped-call]
    untaught = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert untaught == []
    for objective in made:
        objective.play(context, 1.0)


def test_the_maps_that_objectives_tap_teach_the_backbone_alone(stage: StageContext) -> None:
    network = network_of(stage).train()
    side = stage.size_hw[0]
    features = network(torch.randn(2, 3, side, side)).features
    network.zero_grad()
    torch.stack([x.square().mean() for x in features]).sum().backward()  # type: ignore[no-untyped-call]
    taught = {name.split(".")[0] for name, parameter in network.named_parameters() if parameter.grad is not None}
    assert taught == {"backbone"}
    own = network.backbone(torch.randn(2, 3, side, side))
    assert [x.shape for x in own] == [x.shape for x in features]


@pytest.mark.parametrize("key", RUNNING_LABELERS)
def test_every_labeler_labels_with_it(stage: StageContext, key: str) -> None:
    network_of(stage).train()
    here = dataclasses.replace(stage, folder=stage.folder.parent / key)
    labeler: Any = components("labeler")[key](settings_of(key, here), here)
    assert here.target is not None
    prepared = labeler.prepare(here.target)
    if isinstance(prepared, LabelledSet):
        assert prepared.label(0).shape == stage.size_hw
        return
    label = labeler.label(make_context(here, labeler=labeler)).label
    assert label.shape == (2, *stage.size_hw)
    labeler.after_step(make_context(here, step=3))


def test_all_its_batch_norms_are_measured_again(stage: StageContext) -> None:
    """By the whole network, and the backbone's by the backbone alone."""
    side = stage.size_hw[0]
    batches = [torch.randn(2, 3, side, side) + 1.0]
    for module in (copy.deepcopy(stage.network), copy.deepcopy(network_of(stage).backbone)):
        reestimate(module, batches)
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d) and not _is_auxiliary(part, module):
                assert part.num_batches_tracked is not None and int(part.num_batches_tracked) == 1


def _is_auxiliary(part: nn.Module, module: nn.Module) -> bool:
    return isinstance(module, SegmentationNetwork) and any(part is found for found in module.aux_heads.modules())
