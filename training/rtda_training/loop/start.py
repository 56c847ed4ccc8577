"""What a plan starts from: the network with its first weights, and the spec that its checkpoints carry."""

from __future__ import annotations

from typing import Any

import torch

from rtda_deploy import __version__
from rtda_deploy.errors import CheckpointError, ConfigError
from rtda_deploy.files import sha256_file
from rtda_deploy.spec import ModelSpec
from rtda_training.checkpoint import read_checkpoint
from rtda_training.labels import ClassList
from rtda_training.loop.events import Tell, TrainEvent
from rtda_training.models import OUTPUT_STRIDE, SegmentationNetwork, build_network, load_backbone_weights, network_class
from rtda_training.models.state_dicts import difference, refuse_broken_numbers
from rtda_training.plan import PlanConfig

__all__ = ["check_size", "start_network", "start_spec"]


def check_size(plan: PlanConfig) -> None:
    """Refuse an input size that the network does not take.

    Raises:
        ConfigError: Naming the nearest that works.
    """
    height, width = plan.size_hw
    multiple = network_class(plan.network).SIZE_MULTIPLE
    if height % multiple or width % multiple:
        near = [max(1, round(side / multiple)) * multiple for side in (width, height)]
        raise ConfigError(
            f"size {plan.size} is no multiple of {multiple} each way",
            hint=f"nearest that works: {near[0]}x{near[1]}",
        )


def start_network(plan: PlanConfig, classes: ClassList, tell: Tell | None = None) -> SegmentationNetwork:
    """A new network of the plan on the CPU; random numbers are torch's global ones.

    Args:
        plan: Names network, ImageNet file and checkpoint.
        classes: What it tells apart.
        tell: Told what was loaded.

    Raises:
        CheckpointError: If ``init`` is of other classes or another network, or a file does not fit.
    """
    model = build_network(plan.network, plan.backbone, plan.variant, classes.num_classes)
    if plan.backbone_weights:
        report = load_backbone_weights(model, plan.backbone_weights)
        if tell is not None:
            found = f"{report.matched} of {report.total} tensors from {plan.backbone_weights}"
            tell(TrainEvent("note", f"backbone: {found}"))
    if plan.init:
        _load_init(model, plan, classes)
    return model


def _load_init(model: SegmentationNetwork, plan: PlanConfig, classes: ClassList) -> None:
    start = read_checkpoint(plan.init)
    if start.spec.class_names != classes.names:
        raise CheckpointError(
            f"{plan.init} was trained on other classes than {plan.source} has",
            hint="start from a checkpoint of the same classes, or leave init away",
        )
    problem = difference(model.state_dict(), start.weights)
    if problem:
        raise CheckpointError(
            f"{plan.init} is of another network than {' '.join(map(str, model.architecture.values()))}: {problem}",
            hint="set network, backbone and variant to what rtda-deploy inspect shows",
        )
    refuse_broken_numbers(start.weights, plan.init)
    model.load_state_dict(dict(start.weights))


def start_spec(plan: PlanConfig, classes: ClassList, model: SegmentationNetwork) -> ModelSpec:
    """The contract of the plan's network; ``parent_sha256`` in its provenance is the checkpoint it starts from."""
    provenance: dict[str, Any] = {
        "architecture": model.architecture,
        "recipe": plan.name,
        "domains": {"source": plan.source, "target": plan.target},
        "versions": {"rtda-deploy": __version__, "torch": torch.__version__},
        "seed": plan.seed,
    }
    if plan.init:
        provenance["parent_sha256"] = sha256_file(plan.init)
    return ModelSpec(
        size_hw=plan.size_hw,
        class_names=classes.names,
        palette=classes.palette,
        channel_order=plan.input.channel_order,
        pixel_scale=plan.input.pixel_scale,
        mean=plan.input.mean,
        std=plan.input.std,
        interpolation=plan.input.interpolation,
        output_stride=OUTPUT_STRIDE,
        provenance=provenance,
    )
