"""How far the batch norms of a network are from what they meet: the running statistics against the footage's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Dict, Iterable, List, Mapping

import numpy as np

from rtda_deploy.optional import require

if TYPE_CHECKING:
    from torch import nn

__all__ = ["norm_distance", "norms_kept"]

_FRAMES = 32  # the first of the footage's, spread by the caller
_TRAINED = ("train", "sync")  # of a stage's batch_norm


def norms_kept(provenance: Mapping[str, Any]) -> bool:
    """Whether a network's batch norms stood still in all of its training (``batch_norm = "fixed"``).

    Their statistics are then of other pictures than any that it learned from, and how far they are from the footage's
    says nothing of the network. Checkpoints of earlier versions do not say it, and count as trained.

    Args:
        provenance: Of its spec.
    """
    return provenance.get("batch_norm", "train") not in _TRAINED


def norm_distance(
    network: nn.Module, prepare: Callable[[np.ndarray], np.ndarray], frames: Iterable[np.ndarray]
) -> float:
    """Mean over the channels of all batch norms of log(1 + d): d is the symmetric Kullback-Leibler divergence between
    two normal distributions, that of the running statistics and that of what comes in from the footage. The logarithm
    keeps a few dead channels from deciding.

    Args:
        network: In evaluation mode, with its batch norms; left as it was, on any device.
        prepare: From a frame to the network's input, float32 (1, 3, H, W).
        frames: uint8 (H, W, 3) BGR; 32 of them are looked at.

    Returns:
        0 for footage that looks as the statistics say, larger the less it does. NaN for a network without batch norms.

    Source: the statistics as a sign of shift: Li et al., AdaBN (2018); arXiv 2107.00191.
    """
    torch: Any = require("torch", extra="training", purpose="to look at batch norms")
    sums: Dict[str, List[Any]] = {}

    def look(name: str) -> Callable[..., None]:
        def hook(module: Any, inputs: Any) -> None:
            values = inputs[0].transpose(0, 1).flatten(1).double()
            found = torch.stack([values.mean(dim=1), values.square().mean(dim=1)])
            sums.setdefault(name, []).append(found)

        return hook

    norms = {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm) and module.running_mean is not None
    }
    device = next((value.device for value in network.parameters()), None)
    handles = [module.register_forward_pre_hook(look(name)) for name, module in norms.items()]
    try:
        with torch.inference_mode():
            for frame in _some(frames):
                network(torch.from_numpy(prepare(frame)).to(device))
    finally:
        for handle in handles:
            handle.remove()
    distances = []
    for name, found in sums.items():
        mean, square = torch.stack(found).mean(dim=0)
        variance = (square - mean.square()).clamp_min(0) + norms[name].eps
        own_mean, own = norms[name].running_mean.double(), norms[name].running_var.double() + norms[name].eps
        apart = (mean - own_mean).square()
        divergence = 0.25 * ((own + apart) / variance + (variance + apart) / own - 2.0)
        distances.append(divergence.clamp_max(1e3).log1p())
    return float(torch.cat(distances).mean()) if distances else float("nan")


def _some(frames: Iterable[np.ndarray]) -> List[np.ndarray]:
    every = list(frames)
    chosen = np.linspace(0, len(every) - 1, min(_FRAMES, len(every))).round().astype(int)
    return [every[int(index)] for index in chosen]
