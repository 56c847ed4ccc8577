"""Training a pair of translators between the domains: CycleGAN with BDL's perceptual terms."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from rtda_deploy.errors import ConfigError
from rtda_deploy.sizes import parse_size
from rtda_training.adapt.context import StageContext
from rtda_training.adapt.objectives.adversarial import frozen
from rtda_training.adapt.slots import choice, component, number
from rtda_training.data.config import AugmentConfig
from rtda_training.data.labels.files import write_png
from rtda_training.models import network_class
from rtda_training.models.cyclegan import Discriminators, Generators, Translated
from rtda_training.plan import PlanConfig, StageConfig
from rtda_training.readers import UnlabelledSet
from rtda_training.stages.base import BN_STREAM, SOURCE_STREAM, TARGET_STREAM, StageRun, Stream, step_batches
from rtda_training.stages.translation import losses
from rtda_training.translator import Translator, frames_from, pictures_from, translator_file, write_translator

__all__ = ["TranslationConfig", "TranslationStage"]

_GRID_ROWS = 4


@dataclasses.dataclass(frozen=True)
class TranslationConfig:
    """The translators. Weights are those of BDL's code; its networks have width 64 and 9 blocks, and are slow.

    BDL scales pictures to a width of 1024 and learns from crops of 452x452. Scaling is the plan's (``size``,
    ``augment``), ``crop`` is taken from that; empty, translators see whole pictures.
    """

    width: int = 32  # of the generators and the discriminators
    blocks: int = 6
    crop: str = ""  # WIDTHxHEIGHT
    learning_rate: float = number(2e-4, 0.0, 1.0)  # falls to 0 in a straight line over the second half
    betas: tuple[float, float] = (0.5, 0.999)  # Adam's
    gan_weight: float = number(1.0, 0.0, 1000.0)
    cycle_weight: float = number(10.0, 0.0, 1000.0)
    identity_weight: float = number(5.0, 0.0, 1000.0)  # published as 0.5 times the cycle's
    network: str = ""  # earlier stage whose network the perceptual terms look through; empty: no such terms
    perceptual: str = choice(*losses.PERCEPTUAL)
    perceptual_weight: float = number(0.1, 0.0, 1000.0)  # picture and translated
    perceptual_cycle_weight: float = number(10.0, 0.0, 1000.0)  # picture and what came back
    pool: int = 50  # earlier translations that the discriminators are shown

    def __post_init__(self) -> None:
        for name, least in (("width", 1), ("blocks", 0), ("pool", 0)):
            if getattr(self, name) < least:
                raise ConfigError(
                    f"translation.{name} must be at least {least}, got {getattr(self, name)}",
                    hint="published: width 64, blocks 9, pool 50",
                )
        if not all(0.0 <= beta < 1.0 for beta in self.betas):
            raise ConfigError(f"translation.betas must lie in 0..1, got {self.betas}", hint="published: [0.5, 0.999]")
        if self.crop and any(side % 4 for side in parse_size(self.crop)):
            raise ConfigError(f"translation.crop {self.crop} is no multiple of 4 each way", hint="such as 448x448")


@component("kind", "translation", TranslationConfig)
class TranslationStage(StageRun):
    """Two generators learn to turn the domains into each other, two discriminators to see through it.

    It leaves ``translator-<name>.pth`` in the run's folder and ``grid.png`` in the stage's: rows of a source picture,
    its translation, what came back, and a target picture to compare with.

    Attributes:
        generators: Both, on the device.
        discriminators: Both, on the device.

    Source: Zhu et al., CycleGAN (ICCV 2017); Li et al., BDL (CVPR 2019), equation 2.
    """

    trains_network = False
    needs_target = True

    def __init__(
        self, config: TranslationConfig, stage: StageContext, plan: PlanConfig, stage_config: StageConfig
    ) -> None:
        _check(config, plan, stage_config)
        self._config, self._stage, self._plan, self._stage_config = config, stage, plan, stage_config
        fabric = stage.fabric
        self.generators = Generators(config.width, config.blocks, keeps=config.identity_weight > 0)
        self.discriminators = Discriminators(config.width)
        self._translate, self._generators_optimizer = fabric.setup(self.generators, self._adam(self.generators))
        self._score, self._discriminators_optimizer = fabric.setup(self.discriminators, self._adam(self.discriminators))
        self._pools = {"source": losses.ImagePool(config.pool), "target": losses.ImagePool(config.pool)}
        self._network = stage.finished(config.network).eval().requires_grad_(False) if config.network else None

    @classmethod
    def needs_source(cls, config: Any) -> bool:
        del config
        return True

    @classmethod
    def stages_used(cls, config: TranslationConfig) -> tuple[str, ...]:
        return (config.network,) if config.network else ()

    def begin(self, step: int) -> None:
        plan, stage = self._plan, self._stage
        assert stage.target is not None
        assert stage.source is not None
        self._source = Stream(stage.source, plan, stage, step, SOURCE_STREAM)
        self._target = Stream(stage.target, plan, stage, step, TARGET_STREAM)

    def step(self, step: int) -> dict[str, Any]:
        rate = self._config.learning_rate * losses.half_linear_decay(step, self._stage_config.steps)
        source = self._pictures(self._source.next().frames, step, "source")
        target = self._pictures(self._target.next().frames, step, "target")
        made: Translated = self._translate(source, target)
        row = self._step_generators(source, target, made, rate)
        row["disc"] = self._step_discriminators(source, target, made, step, rate)
        row["learning_rate"] = rate
        return row

    def finish(self) -> None:
        stage, plan = self._stage, self._plan
        if stage.fabric.is_global_zero:
            translator = Translator(
                width=self._config.width,
                blocks=self._config.blocks,
                channel_order=plan.input.channel_order,
                size_hw=plan.size_hw,
                to_target=self.generators.to_target.state_dict(),
                to_source=self.generators.to_source.state_dict(),
                provenance={
                    "recipe": plan.name,
                    "stage": self._stage_config.name,
                    "steps": self._stage_config.steps,
                    "source": plan.source,
                    "target": plan.target,
                    "seed": plan.seed,
                },
            )
            self._write_grid()
            write_translator(translator_file(stage.run_folder, self._stage_config.name), translator)
        stage.fabric.barrier()  # the next stage of every process may read it

    def state_dict(self) -> dict[str, Any]:
        # The names are those of checkpoints written before: "judges" are the discriminators.
        return {
            "translators": self.generators.state_dict(),
            "judges": self.discriminators.state_dict(),
            "translators_optimizer": self._generators_optimizer.state_dict(),
            "judges_optimizer": self._discriminators_optimizer.state_dict(),
            "pools": {name: pool.state_dict() for name, pool in self._pools.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.generators.load_state_dict(state["translators"])
        self.discriminators.load_state_dict(state["judges"])
        self._generators_optimizer.load_state_dict(state["translators_optimizer"])
        self._discriminators_optimizer.load_state_dict(state["judges_optimizer"])
        for name, pool in self._pools.items():
            pool.load_state_dict(state["pools"][name], self._stage.fabric.device)

    # the players

    def _step_generators(self, source: Tensor, target: Tensor, made: Translated, rate: float) -> dict[str, Any]:
        optimizer = self._generators_optimizer
        _set_rate(optimizer, rate)
        optimizer.zero_grad()
        terms = self._generator_losses(source, target, made)
        self._stage.fabric.backward(torch.stack(list(terms.values())).sum())
        optimizer.step()
        return {name: term.detach() for name, term in terms.items()}

    def _generator_losses(self, source: Tensor, target: Tensor, made: Translated) -> dict[str, Tensor]:
        config = self._config
        # Past the wrapper of several processes: nothing of the discriminators is to be synchronised here.
        with frozen(self.discriminators), self._stage.fabric.autocast():
            scores = (self.discriminators.of_target(made.target), self.discriminators.of_source(made.source))
        gan = losses.generator_loss(scores[0]) + losses.generator_loss(scores[1])
        cycle = losses.cycle_loss(source, made.source_again) + losses.cycle_loss(target, made.target_again)
        terms = {"gan": config.gan_weight * gan, "cycle": config.cycle_weight * cycle}
        if config.identity_weight > 0:
            kept = losses.identity_loss(source, made.source_kept) + losses.identity_loss(target, made.target_kept)
            terms["identity"] = config.identity_weight * kept
        if self._network is not None:
            terms.update(self._perceptual_losses(source, target, made))
        return terms

    def _perceptual_losses(self, source: Tensor, target: Tensor, made: Translated) -> dict[str, Tensor]:
        config = self._config
        seen_source, seen_target = self._seen(source), self._seen(target)  # nothing here learns: no graph is kept
        pairs = {
            "perceptual": (config.perceptual_weight, made.target, made.source),
            "perceptual_cycle": (config.perceptual_cycle_weight, made.source_again, made.target_again),
        }
        terms = {}
        for name, (weight, of_source, of_target) in pairs.items():
            if weight > 0:
                far = losses.perceptual_loss(seen_source, self._seen(of_source), config.perceptual)
                far = far + losses.perceptual_loss(seen_target, self._seen(of_target), config.perceptual)
                terms[name] = weight * far
        return terms

    def _step_discriminators(self, source: Tensor, target: Tensor, made: Translated, step: int, rate: float) -> Tensor:
        optimizer = self._discriminators_optimizer
        _set_rate(optimizer, rate)
        optimizer.zero_grad()
        made_source = self._pools["source"].exchange(made.source, self._rng("pool source", step))
        made_target = self._pools["target"].exchange(made.target, self._rng("pool target", step))
        scores = self._score(source, made_source, target, made_target)
        loss = losses.discriminator_loss(scores[0], scores[1]) + losses.discriminator_loss(scores[2], scores[3])
        self._stage.fabric.backward(loss)
        optimizer.step()
        return loss.detach()

    # helpers

    def _adam(self, module: nn.Module) -> torch.optim.Adam:
        return torch.optim.Adam(module.parameters(), lr=self._config.learning_rate, betas=self._config.betas)

    def _pictures(self, frames: Tensor, step: int, domain: str) -> Tensor:
        if self._config.crop:
            frames = _cropped(frames, parse_size(self._config.crop), self._rng(f"crop {domain}", step))
        return pictures_from(frames, self._plan.input.channel_order)

    def _seen(self, pictures: Tensor) -> Tensor:
        """Logits of the frozen segmentation network for pictures in -1..1; gradients pass to the pictures."""
        assert self._network is not None
        with self._stage.fabric.autocast():
            output = self._network(self._stage.normalise(frames_from(pictures, self._plan.input.channel_order)))
        return cast(Tensor, output.logits)

    def _rng(self, purpose: str, step: int) -> np.random.Generator:
        """A pure function of the step, of its own for each process."""
        stage = self._stage
        return np.random.default_rng([*stage.seed, zlib.crc32(purpose.encode()), step, 1 + stage.first_place])

    @torch.no_grad()
    def _write_grid(self) -> None:
        assert self._stage.source is not None and self._stage.target is not None
        source, target = self._fixed(self._stage.source), self._fixed(self._stage.target)
        rows = []
        for picture, other in zip(source, target, strict=False):
            with self._stage.fabric.autocast():
                made = self.generators.to_target(picture)
                again = self.generators.to_source(made)
            rows.append(torch.cat([picture, made.float(), again.float(), other], dim=3))
        frames = frames_from(torch.cat(rows, dim=2), self._plan.input.channel_order)
        grid = frames[0].round().clamp(0.0, 255.0).byte().cpu().numpy()
        write_png(self._stage.folder / "grid.png", grid)

    def _fixed(self, pictures: UnlabelledSet) -> list[Tensor]:
        """The same few pictures whenever it is called, each (1, 3, H, W), whole and not augmented."""
        rows = min(_GRID_ROWS, len(pictures))
        steps = -(-rows // self._plan.batch_size)
        plain = step_batches(pictures, self._plan, steps, BN_STREAM, augment=AugmentConfig(flip=False))
        frames = torch.cat([plain[step].frames for step in range(steps)])[:rows].to(self._stage.fabric.device)
        whole = pictures_from(frames, self._plan.input.channel_order)
        return [whole[row : row + 1] for row in range(rows)]


def _check(config: TranslationConfig, plan: PlanConfig, stage_config: StageConfig) -> None:
    """Refuse settings that a translation stage would ignore."""
    others = [f"{found.slot} {key!r}" for key, found in stage_config.used().items() if found.slot != "kind"]
    if others or stage_config.labelled == "target":
        what = others[0] if others else "labelled = target"
        raise ConfigError(f"stage {stage_config.name!r} is a translation and has no use for {what}", hint="take it out")
    if not config.crop:
        return
    crop_hw, multiple = parse_size(config.crop), network_class(plan.network).SIZE_MULTIPLE
    if any(side > whole for side, whole in zip(crop_hw, plan.size_hw, strict=True)):
        raise ConfigError(f"translation.crop {config.crop} is larger than size {plan.size}", hint="a part of a picture")
    if config.network and any(side % multiple for side in crop_hw):
        height, width = (max(1, side // multiple) * multiple for side in crop_hw)
        raise ConfigError(
            f"translation.crop {config.crop} is no multiple of {multiple} each way, which {plan.network} needs",
            hint=f"such as {width}x{height}",
        )


def _set_rate(optimizer: Any, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def _cropped(frames: Tensor, size_hw: tuple[int, int], rng: np.random.Generator) -> Tensor:
    """A window of each frame (N, H, W, 3), at a place drawn for it."""
    height, width = size_hw
    windows = []
    for frame in frames:
        top = int(rng.integers(frame.shape[0] - height + 1))
        left = int(rng.integers(frame.shape[1] - width + 1))
        windows.append(frame[top : top + height, left : left + width])
    return torch.stack(windows)
