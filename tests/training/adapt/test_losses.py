"""Losses against torch's own, and their edge cases."""

import torch
import torch.nn.functional as functional

from rtda_training.adapt.losses import SOURCE, TARGET, domain_loss, pixel_cross_entropy


def test_cross_entropy_equals_torch_with_ignored_pixels():
    logits = torch.randn(2, 19, 8, 8).contiguous(memory_format=torch.channels_last)
    label = torch.randint(0, 19, (2, 8, 8))
    label[0, :3] = 255
    expected = functional.cross_entropy(logits, label, ignore_index=255)
    torch.testing.assert_close(pixel_cross_entropy(logits, label), expected)


def test_a_batch_without_labels_gives_zero_and_a_zero_gradient():
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss = pixel_cross_entropy(logits, torch.full((1, 4, 4), 255))
    loss.backward()
    assert loss.item() == 0.0 and logits.grad is not None and logits.grad.abs().sum() == 0


def test_domain_loss_is_binary_cross_entropy_of_one_logit():
    logits = torch.tensor([[[[2.0]]]])
    torch.testing.assert_close(domain_loss(logits, TARGET), functional.softplus(torch.tensor(-2.0)))
    torch.testing.assert_close(domain_loss(logits, SOURCE), functional.softplus(torch.tensor(2.0)))
