"""Batch norms shifted by what differs between two domains."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rtda_training.stages.norm_shift import norm_inputs, shifted_statistics


def network() -> nn.Sequential:
    """Two batch norms whose statistics are of no domain here."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 6, 1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 1), nn.BatchNorm2d(4, affine=False)]
    found = nn.Sequential(*layers)
    for norm in (found[1], found[4]):
        norm.running_mean.uniform_(-1, 1)
        norm.running_var.uniform_(0.5, 2)
    return found.eval()


def pictures(count: int = 3, seed: int = 1) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(4, 3, 8, 8, generator=generator) for _ in range(count)]


def with_statistics(model: nn.Module, found: dict[str, torch.Tensor]) -> nn.Module:
    model.load_state_dict({**model.state_dict(), **found})
    return model


def test_what_enters_each_norm_is_its_mean_and_variance_and_the_network_is_left_as_it_was() -> None:
    model, batches = network(), pictures()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.train()
    found = norm_inputs(model, batches)
    assert model.training and all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    first = torch.cat([model[0](batch) for batch in batches])
    second = model.eval()[3](model[2](model[1](first)))
    for name, values in (("1", first), ("4", second)):
        variance, mean = torch.var_mean(values, dim=(0, 2, 3), correction=0)
        torch.testing.assert_close(found[name], torch.stack([mean, variance]), rtol=1e-4, atol=1e-5)
    assert not model[1]._forward_pre_hooks


def test_a_target_in_other_colours_passes_the_shifted_network_as_the_source_does_its_own() -> None:
    """Colours of the input, weighed and moved channel by channel, are undone at the first norm: the rest is equal."""
    model = nn.Sequential(nn.BatchNorm2d(3), *network())
    model[0].running_mean.fill_(0.3)
    source = pictures()
    factor, offset = torch.tensor([0.6, 1.5, 2.0]).view(1, 3, 1, 1), torch.tensor([1.0, -2.0, 0.5]).view(1, 3, 1, 1)
    target = [batch * factor + offset for batch in source]
    expected = [model.eval()(batch) for batch in source]
    found = shifted_statistics(model, norm_inputs(model, source), target)
    assert set(found) == {f"{name}.running_{what}" for name in (0, 2, 5) for what in ("mean", "var")}
    with_statistics(model, found)
    for batch, wanted in zip(target, expected, strict=True):
        torch.testing.assert_close(model(batch), wanted, rtol=0.02, atol=0.15)  # a batch's moments are not the set's
    torch.testing.assert_close(found["2.running_mean"], network()[1].running_mean, rtol=0, atol=0.1)


def test_where_domains_are_alike_nothing_moves() -> None:
    model, batches = network(), pictures(1)
    found = shifted_statistics(model, norm_inputs(model, batches), batches)
    for key, value in found.items():
        torch.testing.assert_close(value, model.state_dict()[key], rtol=1e-4, atol=1e-5)


def test_a_silent_channel_moves_its_variance_at_most_tenfold_and_nothing_becomes_infinite() -> None:
    model, batches = network(), pictures()
    silent = {
        name: torch.stack([value[0], torch.zeros_like(value[1])]) for name, value in norm_inputs(model, batches).items()
    }
    found = shifted_statistics(model, silent, batches)
    ratio = found["1.running_var"] / model[1].running_var
    assert float(ratio.max()) == pytest.approx(10.0) and all(bool(value.isfinite().all()) for value in found.values())


def test_norms_that_nothing_is_known_of_stay() -> None:
    model, batches = network(), pictures()
    known = {"1": norm_inputs(model, batches)["1"]}
    found = shifted_statistics(model, known, [batch + 3 for batch in batches])
    assert set(found) == {"1.running_mean", "1.running_var"}


def test_a_broken_off_measurement_leaves_the_statistics_as_they_were() -> None:
    model, batches = network(), pictures()
    source, before = norm_inputs(model, batches), model[1].running_mean.clone()

    def broken_off():  # type: ignore[no-untyped-def]
        yield batches[0] + 3
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shifted_statistics(model, source, broken_off())
    assert torch.equal(model[1].running_mean, before) and not model[1]._forward_pre_hooks
