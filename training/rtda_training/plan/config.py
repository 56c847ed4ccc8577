"""A whole run as data."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from rtda_deploy.errors import ConfigError
from rtda_deploy.files import check_file_name
from rtda_deploy.sizes import parse_size
from rtda_training.adapt.slots import choice, number
from rtda_training.data.config import AugmentConfig, InputConfig
from rtda_training.plan.stage import StageConfig

__all__ = ["PlanConfig"]


@dataclasses.dataclass(frozen=True)
class PlanConfig:
    """A whole run.

    Attributes:
        name: The recipe's name.
        description: One sentence for people.
        source: Address of the labelled domain; empty for a plan that adapts the network of ``init`` to the target
            without a source picture. Classes are then those of ``init``.
        target: Address of the unlabelled domain; may be empty where no stage needs it.
        labelled_target: Address of a few labelled frames of the target, which objective ``target-labels`` learns from;
            where it is given and no stage names that objective, every stage that trains the network gets it.
        val: Address of the labelled set that ``best.pth`` is chosen on; empty: the val split of the domain whose labels
            the last stage learns from is validated on, nothing without a source, and ``rank`` says what chooses.
        check: Address of a few labelled frames of the target that nothing learns from. They choose ``best.pth`` among
            the networks that the run made, whatever ``val`` is, each with its own and with other batch norms.
        classes: Class list that the network learns, such as ``camvid``; labels are joined to it by name. Empty: the
            source's own.
        network: A key of ``rtda_training.models.NETWORKS``.
        backbone: One that the network takes; empty: its usual one.
        variant: One of the network's, such as a BiSeNet's ``rtda`` and ``paper``; a network without ``rtda`` takes it
            for its usual one.
        backbone_weights: ImageNet file for the backbone, or ``imagenet`` for one whose weights a package brings; empty:
            random.
        backbone_stages: Stages of the backbone that the file covers, 1 to 4; the others start at random. 0: the file
            fits whole or is refused.
        backbone_norms: What the backbone's batch norms start from: the file's statistics (``file``), or those of the
            source's pictures, measured before the first step (``source``). ``auto``: ``source`` for an ``.npz``, whose
            statistics are mostly made up where batch norms were folded, else ``file``.
        init: A checkpoint to start from; empty: none.
        size: Network input, width x height.
        batch_size: Pictures per domain and step, of all processes together.
        seed: Decides weights, order of pictures and augmentation.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        precision: ``auto`` is bf16 where the hardware trains faster in it, else fp32.
        workers: Processes that prepare batches; -1: none on a CPU, 4 with a GPU.
        cache: Decode every picture once, keep it at the network's size (times ``augment.scale_max``) on disk.
        max_corrupt: Share of a set's pictures that may turn out unreadable or unfit; they are named and replaced.
        val_every: Steps between validations; 0: at the end of a stage only.
        val_pictures: At most this many pictures per validation.
        save_every: Steps between checkpoints to resume from; 0: at the end of a stage only.
        rank: Where unlabelled target pictures are used and no ``val`` is named, the networks that the run made are
            ranked on them at its end, and ``best.pth`` is the one that ranks first.
        stages: The trainings, one after the other, each from the last one's network.
    """

    name: str = "recipe"
    description: str = ""
    source: str = "toytown:source"
    target: str = ""
    labelled_target: str = ""
    val: str = ""
    check: str = ""
    classes: str = ""
    network: str = "bisenet"
    backbone: str = ""
    variant: str = "rtda"
    backbone_weights: str = ""
    backbone_stages: int = number(0, 0, 4)
    backbone_norms: str = choice("auto", "file", "source")
    init: str = ""
    size: str = "1024x512"
    batch_size: int = 4
    seed: int = 0
    device: str = "auto"
    precision: str = choice("auto", "fp32", "bf16")
    workers: int = -1
    cache: bool = False
    max_corrupt: float = 0.01
    val_every: int = 500
    val_pictures: int = 500
    save_every: int = 500
    rank: bool = True
    input: InputConfig = dataclasses.field(default_factory=InputConfig)
    augment: AugmentConfig = dataclasses.field(default_factory=AugmentConfig)
    stages: tuple[StageConfig, ...] = dataclasses.field(default_factory=lambda: (StageConfig(),))

    def __post_init__(self) -> None:
        check_file_name(self.name, "a recipe's name")
        self.network_settings()
        if self.backbone_stages and not self.backbone_weights:
            raise ConfigError(
                f"backbone_stages {self.backbone_stages} says what a file covers, and there is no file",
                hint="add --backbone-weights FILE, or leave backbone_stages away",
            )
        if self.batch_size < 1:
            raise ConfigError(f"batch_size must be positive, got {self.batch_size}", hint="at least 2 for BiSeNet")
        if not self.stages:
            raise ConfigError("a plan needs at least one stage", hint="leave stages away for a plan of one")
        names = [stage.name for stage in self.stages]
        if len(set(names)) != len(names):
            raise ConfigError(f"two stages have the same name: {', '.join(names)}", hint="give each its own name")
        if not self.source:
            self._check_without_source()
        for place, stage in enumerate(self.stages):
            self._check_stages_used(place)
            if self.source and stage.kind == "segmentation" and "supervised" not in stage.objectives:
                raise ConfigError(
                    f"stage {stage.name!r} has no objective that learns from labels", hint='add "supervised"'
                )
            if (stage.uses_target or stage.labelled == "target") and not self.target:
                raise ConfigError(f"stage {stage.name!r} needs a target domain", hint="add --target DATA")
            if stage.trains_on_target_labels and not self.labelled_target:
                raise ConfigError(
                    f"stage {stage.name!r} learns from labelled target frames, and none are given",
                    hint="add --labelled-target DATA, or take target-labels out of its objectives",
                )
        if self.labelled_target and not any(stage.trains_on_target_labels for stage in self.stages):
            raise ConfigError(
                f"no stage learns from the labelled target frames {self.labelled_target}",
                hint='add "target-labels" to the objectives of a stage, or leave labelled_target away',
            )

        if self.check:
            self._check_judged()

    def _check_judged(self) -> None:
        """Refuse labelled frames that nothing is chosen by."""
        if not self.target:
            raise ConfigError(
                f"--check {self.check} has nothing to choose among: there is no target that networks are adapted to",
                hint="add --target DATA; or --val DATA, which chooses among the steps",
            )
        if not self.ranks:
            raise ConfigError(
                f"--check {self.check} cannot choose: this plan's networks are not ranked",
                why="rank is false, or a stage learns from the target's own labels",
                hint="leave rank=false away; or --val DATA, which chooses among the steps",
            )

    def _check_without_source(self) -> None:
        """Refuse what cannot be done without source pictures."""
        if not self.init:
            raise ConfigError(
                "a plan without a source adapts a network that is there, and none is named",
                hint="rtda-deploy adapt MODEL --footage DATA; or add --init MODEL, or --source DATA",
            )
        if self.classes:
            raise ConfigError(
                f"classes {self.classes!r} cannot be chosen without a source: they are those of the network",
                hint="leave classes away",
            )
        if self.measures_norms:
            raise ConfigError("backbone_norms = source needs a source", hint="leave backbone_norms away")
        for stage in self.stages:
            if stage.needing_source:
                raise ConfigError(
                    f"stage {stage.name!r} works on source pictures, and the plan has no source:"
                    f" {', '.join(stage.needing_source)}",
                    hint="add --source DATA, or take them out; what needs no source: rtda-deploy adapt --help",
                )
            if not stage.objectives:
                raise ConfigError(f"stage {stage.name!r} has no objective", hint='such as objectives = ["entropy"]')

    def _check_stages_used(self, place: int) -> None:
        """Refuse a stage that needs one which does not come before it, or is of another kind."""
        stage, earlier = self.stages[place], {stage.name: stage.kind for stage in self.stages[:place]}
        for name, wanted in stage.stages_used:
            if name not in earlier:
                raise ConfigError(
                    f"stage {stage.name!r} needs stage {name!r}, and no earlier one is called so",
                    hint=f"earlier stages: {', '.join(earlier) or 'none'}",
                )
            if earlier[name] != wanted:
                fitting = ", ".join(other for other, kind in earlier.items() if kind == wanted)
                raise ConfigError(
                    f"stage {stage.name!r} needs a {wanted} stage, and {name!r} is a {earlier[name]}",
                    hint=f"such stages: {fitting or 'none'}",
                )

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width of the network's input."""
        return parse_size(self.size)

    @property
    def measures_norms(self) -> bool:
        """Whether the backbone's batch norms start from statistics of the source's pictures."""
        auto = self.backbone_norms == "auto" and self.backbone_weights.endswith(".npz")
        return auto or self.backbone_norms == "source"

    @property
    def network_text(self) -> str:
        """The network for people: ``BiSeNet-resnet18 rtda``; a backbone called as its network is not said twice."""
        from rtda_training.models import network_class

        settings = self.network_settings()
        name = network_class(self.network).NAME
        own = settings.pop("backbone").removeprefix(name.lower())
        return " ".join([f"{name}-{own}" if own else name, *settings.values()])

    def network_settings(self) -> dict[str, str]:
        """What the network is built from.

        Raises:
            ConfigError: If the network does not take the backbone or variant.
        """
        from rtda_training.models import network_settings  # loads torch

        return network_settings(self.network, self.backbone, self.variant)

    @property
    def ranks(self) -> bool:
        """Whether ``best.pth`` is chosen by ranking: by the labels of ``check``, or without any."""
        learns = all(stage.labelled == "source" for stage in self.stages) and self.stages[-1].kind == "segmentation"
        asked = bool(self.check) or (not self.val and any(stage.uses_target for stage in self.stages))
        return self.rank and learns and asked

    @property
    def validation(self) -> str:
        """Address of the set that is validated on; empty where there is none."""
        return self.val or (self.target if self.stages[-1].labelled == "target" else self.source)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values; ``plan_from_table(plan.to_dict()) == plan``."""
        values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        for stage in values["stages"]:
            settings = stage.pop("settings")
            stage.update({key: table for key, table in settings.items() if table})
        return values
