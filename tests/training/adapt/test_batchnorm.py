"""Re-estimated batch-norm statistics are the plain average over the batches."""

import torch
from torch import nn

from rtda_training.stages.segmentation import reestimate


def test_statistics_become_the_average_over_the_given_batches():
    norm = nn.BatchNorm2d(3)
    model = nn.Sequential(norm).eval()
    norm.running_mean.fill_(7.0)
    batches = [torch.randn(4, 3, 5, 5) * (k + 1) + k for k in range(3)]
    assert reestimate(model, batches) == 3
    means = torch.stack([b.mean((0, 2, 3)) for b in batches]).mean(0)
    variances = torch.stack([b.var((0, 2, 3)) for b in batches]).mean(0)
    torch.testing.assert_close(norm.running_mean, means)
    torch.testing.assert_close(norm.running_var, variances)


def test_weights_momentum_and_mode_stay():
    norm = nn.BatchNorm2d(2, momentum=0.3)
    model = nn.Sequential(nn.Conv2d(3, 2, 1), norm).eval()
    before = {name: p.clone() for name, p in model.named_parameters()}
    reestimate(model, [torch.randn(2, 3, 4, 4)])
    assert norm.momentum == 0.3 and not model.training
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) and parameter.grad is None
