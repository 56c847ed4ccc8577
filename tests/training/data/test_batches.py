"""Batches are a pure function of the step; labels follow their pictures through every change."""

import numpy as np
import pytest
import torch

from rtda_deploy.errors import DataError
from rtda_training.data.address import DataAddress
from rtda_training.data.batches import PictureOrder, StepBatches, batches_from, normalise
from rtda_training.data.config import AugmentConfig, InputConfig
from rtda_training.labels import CITYSCAPES
from rtda_training.readers import LabelledSet, Pictures, UnlabelledSet

ADDRESS = DataAddress("memory", "x", {})


class Memory(Pictures):
    """Pictures whose blue channel is their label, so that geometry can be checked."""

    classes = CITYSCAPES

    def __init__(self, count=7, size=(32, 64)):
        rng = np.random.default_rng(0)
        blocks = rng.integers(0, 19, (count, size[0] // 8, size[1] // 8))
        self.labels = np.kron(blocks, np.ones((1, 8, 8))).astype(np.uint8)

    def __len__(self):
        return len(self.labels)

    def name(self, index):
        return str(index)

    def frame(self, index):
        return np.repeat(self.labels[index][..., None] * 10, 3, axis=2)

    def label(self, index):
        return self.labels[index]


def batches(augment=AugmentConfig(flip=False), labelled=True, seed=0, stream=0, steps=50, size=(32, 64)):
    kind = LabelledSet if labelled else UnlabelledSet
    return StepBatches(
        kind(Memory(), ADDRESS),
        size_hw=size,
        batch_size=2,
        seed=seed,
        stream=stream,
        augment=augment,
        steps=steps,
    )


def test_the_same_step_gives_the_same_batch_whatever_came_before():
    augment = AugmentConfig(scale_max=1.5, brightness=0.3, contrast=0.3, saturation=0.3, blur=0.5)
    a, b = batches(augment), batches(augment)
    for step in range(9):
        a[step]
    assert torch.equal(a[30].frames, b[30].frames) and torch.equal(a[30].labels, b[30].labels)


def test_seeds_and_streams_differ():
    first = batches()[3][0]
    assert not torch.equal(first, batches(seed=1)[3][0])
    assert not torch.equal(first, batches(stream=1)[3][0])


def test_every_picture_is_seen_once_per_epoch():
    order = PictureOrder(7, (0, 0))
    seen = [order.draw(position).index for position in range(14)]
    assert sorted(seen[:7]) == list(range(7)) == sorted(seen[7:])
    assert seen[:7] != seen[7:]


@pytest.mark.parametrize("augment", [AugmentConfig(), AugmentConfig(scale_min=0.5, scale_max=2.0)])
def test_labels_follow_their_pictures(augment):
    data = batches(augment)
    agreeing = total = 0
    for step in range(10):
        frames, labels, _ = data[step]
        known = labels != 255
        agreeing += int(((frames[..., 0].float() / 10).round()[known] == labels[known]).sum())
        total += int(known.sum())
        assert (frames[~known] == 0).all()  # what lies outside the picture is black and not labelled
    assert agreeing / total > 0.75  # pictures are interpolated between classes, labels are not


def test_flipping_happens_about_half_the_time():
    plain, flipped = batches(), batches(AugmentConfig(flip=True))
    same = sum(torch.equal(plain[s][0][k], flipped[s][0][k]) for s in range(20) for k in range(2))
    assert 10 < same < 30


def test_an_unlabelled_set_gives_no_labels():
    assert batches(labelled=False)[0][1].numel() == 0


def test_worker_processes_change_nothing():
    here = list(batches_from(batches(steps=4), 1, 0))
    there = list(batches_from(batches(steps=4), 1, 1))
    assert len(here) == len(there) == 3
    assert all(torch.equal(a[0], b[0]) for a, b in zip(here, there))


def test_normalising_follows_the_contract():
    frames = torch.randint(0, 256, (1, 4, 6, 3), dtype=torch.uint8)
    rgb = normalise(frames, InputConfig())
    expected = (frames[0, 1, 2].flip(0).float() / 255 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor(
        [0.229, 0.224, 0.225]
    )
    torch.testing.assert_close(rgb[0, :, 1, 2], expected)
    caffe = InputConfig("bgr", 1.0, (104.007, 116.669, 122.679), (1.0, 1.0, 1.0))
    torch.testing.assert_close(
        normalise(frames, caffe)[0, :, 1, 2], frames[0, 1, 2].float() - torch.tensor([104.007, 116.669, 122.679])
    )
    assert rgb.is_contiguous(memory_format=torch.channels_last)


class Broken(Memory):
    """Memory with one picture that cannot be read and one whose label has another size."""

    def frame(self, index):
        if index == 2:
            raise DataError("picture 2 is torn")
        return super().frame(index)

    def label(self, index):
        return super().label(index)[:-1] if index == 4 else super().label(index)


def test_a_picture_that_cannot_be_used_is_named_and_replaced_by_another():
    data = StepBatches(
        LabelledSet(Broken(), ADDRESS),
        size_hw=(32, 64),
        batch_size=7,
        seed=0,
        stream=0,
        augment=AugmentConfig(),
        steps=3,
    )
    for step in range(3):
        batch = data[step]
        assert batch.frames.shape[0] == batch.labels.shape[0] == 7
        assert {fault.split(":")[0] for _, fault, _ in batch.skipped} >= {"picture 2 is torn"}
        assert any("its label" in fault for _, fault, _ in batch.skipped)
    assert torch.equal(data[1].frames, data[1].frames)


def test_processes_share_a_batch_without_a_seam():
    whole = batches()
    size = whole[0].frames.shape[0]
    parts = [
        StepBatches(
            LabelledSet(Memory(), ADDRESS),
            size_hw=(32, 64),
            batch_size=size,
            seed=0,
            stream=0,
            augment=AugmentConfig(flip=False),
            steps=50,
            part=(rank, 2),
        )
        for rank in range(2)
    ]
    together = torch.cat([part[5].frames for part in parts])
    assert torch.equal(together, whole[5].frames)
