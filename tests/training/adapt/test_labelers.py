"""Labelers: dumps on disk that survive a kill, labels from a folder, and the mean teacher."""

import copy
import dataclasses
import json
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from training.settings import TinyNetwork, make_context, make_pictures, make_stage, to_input, with_fields

from rtda_deploy.errors import ConfigError, DataError, TrainingError
from rtda_training.adapt.context import PseudoLabels
from rtda_training.adapt.labelers.ema import EmaConfig, EmaLabeler, average_into
from rtda_training.adapt.labelers.folder import FolderConfig, FolderLabeler
from rtda_training.adapt.labelers.label_dump import LabelDump, OfflineConfig
from rtda_training.adapt.labelers.offline import OfflineLabeler
from rtda_training.adapt.labelers.quality import label_quality
from rtda_training.adapt.slots import components
from rtda_training.data.address import DataAddress
from rtda_training.data.batches import StepBatches
from rtda_training.data.config import AugmentConfig
from rtda_training.data.pseudo_set import PseudoLabelledSet
from rtda_training.readers import LabelledSet, UnlabelledSet

cv2 = pytest.importorskip("cv2")
C = 5


class Teachers:
    """Finished stages by name, sharp enough that their confidences spread over 0..1."""

    def __init__(self, *names):
        self.networks = {}
        for seed, name in enumerate(names):
            torch.manual_seed(100 + seed)
            network = TinyNetwork(C).requires_grad_(False)
            for norm in (module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)):
                norm.momentum = None
            pictures = make_pictures(4, C, seed=seed)
            network.train()(to_input(torch.from_numpy(np.stack(pictures.frames))))
            for head in (network.head, *network.aux_heads):
                head.weight.mul_(4.0)
            self.networks[name] = network.eval()

    def __call__(self, name):
        return self.networks[name]


@pytest.fixture
def stage(tmp_path):
    lines = []
    made = make_stage(C, folder=tmp_path, finished=Teachers("adv", "b", "c"), tell=lines.append)
    return with_fields(made, tell=lines.append)


def told(stage):
    return stage.tell.__self__


def dump(stage, target=None, **config):
    labeler = OfflineLabeler(OfflineConfig(**{"stages": ("adv",), "threshold": 0.5, **config}), stage)
    return labeler.prepare(target or stage.target)


def files(stage):
    return {
        str(path.relative_to(stage.folder)): path.read_bytes()
        for path in sorted(stage.folder.rglob("*"))
        if path.is_file()
    }


def record(stage):
    return json.loads((stage.folder / "labels.json").read_text())


def predictions(stage, *names, outputs=1):
    """Per picture and output, the mean softmax of some networks (C, H, W)."""
    found = []
    for index in range(len(stage.target)):
        picture = to_input(torch.from_numpy(stage.target.frame(index))[None])
        each = [stage.finished(name)(picture, aux=True) for name in names]
        rows = [[o.logits, *o.aux][:outputs] for o in each]
        found.append([torch.stack([r[k].softmax(1)[0] for r in rows]).mean(0) for k in range(outputs)])
    return found


# offline


def test_labelers_are_found_by_their_names_in_recipes():
    assert {"offline", "folder", "ema"} <= components("labeler").keys()


def test_fixed_threshold_labels_are_those_of_brute_force(stage):
    labelled = dump(stage, threshold=0.6)
    for index, (probability,) in enumerate(predictions(stage, "adv")):
        confidence, label = probability.max(dim=0)
        wanted = torch.where(confidence >= 0.6, label, 255).numpy()
        np.testing.assert_array_equal(labelled.label(index), wanted)
        assert 0 < (wanted == 255).sum() < wanted.size


def test_class_balanced_labels_are_those_of_sorting_every_confidence(stage):
    labelled = dump(stage, select="class-balanced", quantile=0.66, cap=0.8)
    all_pixels = [probability.max(dim=0) for (probability,) in predictions(stage, "adv")]
    confidences = torch.cat([confidence.flatten() for confidence, _ in all_pixels])
    labels = torch.cat([label.flatten() for _, label in all_pixels])
    limits = []
    for index in range(C):
        mine = confidences[labels == index].sort().values
        exact = float(mine[int(0.66 * len(mine) + 1e-6)]) if len(mine) else 9.0
        limits.append(min(int(exact * 1000) / 1000, 0.8))
    assert len({round(limit, 3) for limit in limits}) > 2
    written = record(stage)
    for index, (confidence, label) in enumerate(all_pixels):
        wanted = torch.where(confidence >= torch.tensor(limits)[label], label, 255).numpy()
        np.testing.assert_array_equal(labelled.label(index), wanted)
    for index, row in enumerate(written["classes"].values()):
        assert row["threshold"] == pytest.approx(limits[index])
        assert row["predicted_pixels"] == int((labels == index).sum())


def test_several_stages_label_by_their_mean_softmax(stage):
    labelled = dump(stage, stages=("adv", "b", "c"), threshold=0.0)
    wanted = [int_map(probability) for (probability,) in predictions(stage, "adv", "b", "c")]
    for index, label in enumerate(wanted):
        np.testing.assert_array_equal(labelled.label(index), label)
    alone = [int_map(probability) for (probability,) in predictions(stage, "adv")]
    assert any((a != b).any() for a, b in zip(alone, wanted, strict=True))


def int_map(probability):
    return probability.argmax(dim=0).to(torch.uint8).numpy()


@pytest.mark.parametrize(("outputs", "fuse"), [(2, "confidence"), (3, "confidence"), (3, "majority"), (3, "mean")])
def test_auxiliary_outputs_are_fused_at_the_pictures_size(stage, outputs, fuse):
    from rtda_training.adapt.pseudo import fuse as fuse_maps

    labelled = dump(stage, outputs=outputs, fuse=fuse, threshold=0.0)
    for index, maps in enumerate(predictions(stage, "adv", outputs=outputs)):
        wanted, _ = fuse_maps([each[None] for each in maps], fuse)
        np.testing.assert_array_equal(labelled.label(index), wanted[0].numpy())
        assert (wanted[0] != maps[0].argmax(dim=0)).any()


def test_more_outputs_than_the_network_has_are_refused(stage):
    network = stage.finished("adv")
    network.forward = lambda image, aux: TinyNetwork.forward(network, image, aux=False)
    with pytest.raises(ConfigError, match=r"offline\.outputs is 3"):
        dump(stage, outputs=3)


def test_coverage_is_told_and_recorded(stage):
    labelled = dump(stage, select="class-balanced", cap=0.95)
    written = record(stage)
    labels = np.stack([labelled.label(index) for index in range(len(labelled))])
    assert written["share"] == pytest.approx((labels != 255).mean())
    for index, row in enumerate(written["classes"].values()):
        assert row["kept_pixels"] == (labels == index).sum()
        if row["predicted_pixels"]:
            assert row["kept_share"] == pytest.approx(row["kept_pixels"] / row["predicted_pixels"])
    limits = [row["threshold"] for row in written["classes"].values() if row["predicted_pixels"]]
    text = f"labels  {100 * written['share']:.1f} % of the pixels, thresholds {min(limits):.2f}..{max(limits):.2f}"
    assert told(stage)[-1] == text
    assert written["pictures"] == [stage.target.key(index) for index in range(6)]


def test_labels_are_of_the_networks_size_whatever_the_pictures(tmp_path):
    stage = make_stage(C, folder=tmp_path, finished=Teachers("adv"), size_hw=(64, 96))
    target = UnlabelledSet(make_pictures(2, C, (128, 160)), DataAddress.parse("list:target"))
    labelled = dump(stage, target)
    frame, label = labelled.pair(0)
    assert frame.shape == (128, 160, 3) and label.shape == (64, 96)


class Killed(Exception):
    pass


@pytest.mark.parametrize("pictures_until_kill", [1, 6, 7, 11])
def test_a_killed_dump_goes_on_and_ends_with_the_same_bytes(tmp_path, pictures_until_kill):
    config = OfflineConfig(stages=("adv",), select="class-balanced", outputs=3)
    whole, killed = (make_stage(C, folder=tmp_path / name, finished=Teachers("adv")) for name in ("whole", "killed"))
    LabelDump(config, whole, whole.target, save_every=2).run()
    asked = []

    def mortal(network, pictures):
        if len(asked) == pictures_until_kill:
            raise Killed
        asked.append(1)

    hook = killed.finished("adv").register_forward_pre_hook(mortal)
    with pytest.raises(Killed):
        LabelDump(config, killed, killed.target, save_every=2).run()
    assert not (killed.folder / "labels.json").exists()
    hook.remove()
    again = []
    killed.finished("adv").register_forward_pre_hook(lambda network, pictures: again.append(1))
    LabelDump(config, killed, killed.target, save_every=2).run()
    assert files(killed) == files(whole)
    assert len(again) <= 12 - pictures_until_kill + 1  # at most what came after the last save is done again


def test_a_half_written_label_is_made_again(stage):
    dump(stage)
    before = files(stage)
    (stage.folder / "labels.json").unlink()
    (stage.folder / "labels" / "000003.png").write_bytes(before["labels/000003.png"][:60])
    (stage.folder / "labels" / ".000004.abc.part.png").write_bytes(b"")
    dump(stage)
    assert files(stage) == before


def test_a_finished_dump_is_not_repeated(stage):
    dump(stage)
    before = {path: path.stat().st_mtime_ns for path in stage.folder.rglob("*")}
    stage.finished("adv").register_forward_pre_hook(lambda *_: pytest.fail("asked a network again"))
    labelled = dump(stage)
    assert {path: path.stat().st_mtime_ns for path in stage.folder.rglob("*")} == before
    assert len(labelled) == 6 and "% of the pixels" in told(stage)[-1]


def test_a_label_deleted_from_a_finished_dump_is_made_again(stage):
    dump(stage)
    before = files(stage)
    (stage.folder / "labels" / "000002.png").unlink()
    dump(stage)
    assert files(stage) == before


@pytest.mark.parametrize("change", ["stage", "weights", "pictures"])
def test_labels_of_another_network_setting_or_set_are_made_anew(stage, change):
    dump(stage, threshold=0.5)
    before = files(stage)
    target, threshold = stage.target, 0.5
    if change == "stage":
        threshold = 0.7
    elif change == "weights":
        stage.finished("adv").head.weight.mul_(-1.0)
    else:
        target = UnlabelledSet(make_pictures(3, C, seed=9), DataAddress.parse("list:other"))
    dump(stage, target, threshold=threshold)
    after = files(stage)
    assert after["labels/000000.png"] != before["labels/000000.png"]
    assert len([name for name in after if name.startswith("labels/")]) == len(target)


def test_a_picture_that_cannot_be_read_is_left_unlabelled_and_named(stage):
    pictures = make_pictures(3, C, seed=1)

    class Torn(type(pictures)):
        def frame(self, index):
            if index == 1:
                raise DataError("picture 1 is torn")
            return super().frame(index)

    pictures.__class__ = Torn
    labelled = dump(stage, UnlabelledSet(pictures, DataAddress.parse("list:target")))
    assert (labelled.label(1) == 255).all() and (labelled.label(0) != 255).any()
    assert record(stage)["unreadable"] == ["picture 1"]
    assert "skipped picture 1 is torn" in told(stage)
    before = files(stage)
    (stage.folder / "labels.json").unlink()
    dump(stage, UnlabelledSet(pictures, DataAddress.parse("list:target")))
    assert files(stage) == before


def test_a_network_that_gives_nan_is_an_error_that_names_its_stage(stage):
    stage.finished("adv").head.bias.fill_(float("nan"))
    with pytest.raises(TrainingError, match="adv"):
        dump(stage)


def test_no_stage_is_an_error_with_the_setting_to_make(stage):
    with pytest.raises(ConfigError, match="no network") as caught:
        OfflineLabeler.stages_used(OfflineConfig())
    assert "offline.stages" in caught.value.hint
    assert OfflineLabeler.stages_used(OfflineConfig(stages=("a", "b"))) == ("a", "b")


def test_only_the_first_process_writes_and_all_wait_for_it(stage):
    waited = []
    other = SimpleNamespace(is_global_zero=False, barrier=lambda: waited.append(1), device=torch.device("cpu"))
    labelled = dump(with_fields(stage, fabric=other))
    assert waited == [1] and not stage.folder.exists()
    dump(stage)
    assert labelled.label(0).shape == (64, 64)


def test_the_sets_own_labels_cannot_be_reached(stage):
    secret = make_pictures(6, C, seed=1)
    secret.label = lambda index: pytest.fail("a true label was read")
    labelled = dump(stage, UnlabelledSet(secret, DataAddress.parse("list:target")))
    for index in range(6):
        labelled.frame(index), labelled.label(index), labelled.pair(index)
    with pytest.raises(TypeError, match="open_unlabelled"):
        PseudoLabelledSet(LabelledSet(secret, DataAddress.parse("list:target")), [], stage.source.classes)


def test_batches_crop_and_flip_pseudo_labels_as_their_pictures(stage, tmp_path):
    rng = np.random.default_rng(0)
    label = rng.integers(0, C, (64, 64)).astype(np.uint8)
    frame = np.repeat(label[:, :, None] * 40, 3, axis=2).astype(np.uint8)
    pictures = make_pictures(1, C)
    pictures.frames = [frame]
    assert cv2.imwrite(str(tmp_path / "a.png"), label)
    target = UnlabelledSet(pictures, DataAddress.parse("list:target"))
    labelled = PseudoLabelledSet(target, [tmp_path / "a.png"], stage.source.classes)
    labelled = pickle.loads(pickle.dumps(labelled))  # as a worker process gets it
    augment = AugmentConfig(flip=True, scale_min=2.0, scale_max=2.0)
    batches = StepBatches(
        labelled, size_hw=(64, 64), batch_size=4, seed=0, stream=1, augment=augment, interpolation="nearest", steps=2
    )
    for step in range(2):
        batch = batches[step]
        assert torch.equal(batch.frames[..., 0], batch.labels * 40)
        assert batch.labels.unique().numel() == C


def test_stored_labels_are_given_back_for_the_step(stage):
    labeler = OfflineLabeler(OfflineConfig(stages=("adv",)), stage)
    label = torch.zeros(2, 64, 64, dtype=torch.long)
    assert labeler.label(make_context(stage, target_label=label)) == PseudoLabels(label, None)
    with pytest.raises(RuntimeError, match="carries no labels"):
        labeler.label(make_context(stage))


# folder


def named_pictures(*keys):
    pictures = make_pictures(len(keys), C)
    pictures.name = pictures.key = lambda index: keys[index]
    return UnlabelledSet(pictures, DataAddress.parse("list:target"))


def write(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((8, 8), value, np.uint8))


def folder_set(stage, path, target):
    return FolderLabeler(FolderConfig(str(path)), stage).prepare(target)


def test_folder_labels_are_found_with_and_without_the_pictures_folders(stage, tmp_path):
    write(tmp_path / "in" / "aachen" / "a.png", 1)
    write(tmp_path / "in" / "b.png", 2)
    labelled = folder_set(stage, tmp_path / "in", named_pictures("aachen/a", "bonn/b"))
    assert [int(labelled.label(index)[0, 0]) for index in range(2)] == [1, 2]
    assert labelled.classes == stage.source.classes


def test_missing_folder_labels_are_counted_and_the_first_is_named(stage, tmp_path):
    write(tmp_path / "in" / "a.png")
    with pytest.raises(DataError, match=r"2 of 3 pictures .* first: x/b\.png"):
        folder_set(stage, tmp_path / "in", named_pictures("x/a", "x/b", "x/c"))


def test_one_label_for_two_pictures_is_refused(stage, tmp_path):
    write(tmp_path / "in" / "a.png")
    with pytest.raises(DataError, match="several pictures"):
        folder_set(stage, tmp_path / "in", named_pictures("x/a", "y/a"))


def test_a_folder_labeler_without_a_folder_is_refused(stage, tmp_path):
    with pytest.raises(ConfigError, match="no folder"):
        FolderLabeler(FolderConfig(), stage)
    with pytest.raises(DataError, match="is no folder"):
        folder_set(stage, tmp_path / "nowhere", stage.target)


def test_labels_outside_the_networks_classes_are_refused_when_read(stage, tmp_path):
    write(tmp_path / "in" / "a.png", 77)
    with pytest.raises(DataError, match="outside its 5 classes: 77"):
        folder_set(stage, tmp_path / "in", named_pictures("a")).pair(0)


def test_the_folder_of_an_offline_stage_can_be_used_again(stage):
    made = dump(stage, threshold=0.5)
    for folder in (stage.folder, stage.folder / "labels"):  # either is named when people mean the labels
        labelled = folder_set(stage, folder, stage.target)
        np.testing.assert_array_equal(labelled.label(4), made.label(4))


@pytest.fixture
def bulk_labels(tmp_path):
    """Footage of three pictures, labelled by a small network as ``label`` does, in both layouts."""
    fleet = pytest.importorskip("rtda_runtime.fleet.labelling")
    pytest.importorskip("onnx")
    from runtime.models import write_model

    model = write_model(tmp_path / "model.onnx")
    pictures = make_pictures(3, C)
    for name, frame in zip(("a", "deep/b", "c"), pictures.frames, strict=True):
        (tmp_path / "frames" / name).parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(tmp_path / "frames" / f"{name}.png"), frame)
    for layout in ("png", "tar"):
        asked = fleet.LabelRequest(model, (str(tmp_path / "frames"),), tmp_path / layout, layout=layout, threads=1)
        assert fleet.label_footage(asked).frames == 3
    return tmp_path


@pytest.mark.parametrize("layout", ["png", "tar"])
def test_what_label_wrote_is_a_labelers_folder(stage, bulk_labels, layout):
    out = bulk_labels / layout
    names = json.loads((out / "masks" / "classes.json").read_text())["names"]
    ours = [f"{name}={stage.source.classes.names[place]}" for place, name in enumerate(names)]
    config = FolderConfig(str(out), map=tuple(ours), confidences=str(out / "confidences"), threshold=0.3)
    FolderLabeler.preflight(config, stage.source.classes)
    labelled = FolderLabeler(config, stage).prepare(named_pictures("deep/b", "a"))
    mask, sure = (
        cv2.imread(str(bulk_labels / "png" / kind / "deep" / "b.png"), cv2.IMREAD_UNCHANGED)
        for kind in ("masks", "confidences")
    )
    assert 0 < (sure >= 0.3 * 255).mean() < 1
    np.testing.assert_array_equal(labelled.label(0), np.where(sure >= 0.3 * 255, mask, 255))
    assert not (stage.folder / "masks" / "c.png").exists(), "what is not trained on is not unpacked"


def test_labels_that_are_not_whole_are_no_labelers_folder(stage, bulk_labels):
    (bulk_labels / "tar" / "labelled.json").unlink()
    with pytest.raises(DataError, match="not labelled to its end"):
        FolderLabeler(FolderConfig(str(bulk_labels / "tar" / "masks")), stage).prepare(named_pictures("a"))


def test_a_damaged_shard_is_named(stage, bulk_labels):
    (shard,) = (bulk_labels / "tar" / "shards").iterdir()
    shard.write_bytes(shard.read_bytes()[:700])
    with pytest.raises(DataError, match="is damaged"):
        FolderLabeler(FolderConfig(str(bulk_labels / "tar")), stage).prepare(named_pictures("a"))


# quality


def test_quality_counts_coverage_and_right_labels_by_hand(tmp_path):
    truth = np.array([[0, 0, 1, 1], [2, 2, 255, 255]], np.uint8)
    pseudo = np.array([[0, 255, 1, 0], [2, 255, 3, 255]], np.uint8)
    pictures = make_pictures(1, C)
    pictures.labels = [truth]
    labelled = LabelledSet(pictures, DataAddress.parse("list:target"))
    assert cv2.imwrite(str(tmp_path / "picture 0.png"), pseudo)
    quality = label_quality(tmp_path, labelled)
    assert quality.coverage == pytest.approx(4 / 6) and quality.accuracy == pytest.approx(3 / 4)
    rows = list(quality.to_dict()["classes"].values())
    assert rows[0] == {"coverage": 0.5, "recall": 0.5, "precision": 0.5}
    assert rows[1] == {"coverage": 1.0, "recall": 0.5, "precision": 1.0}
    assert rows[4] == {"coverage": None, "recall": None, "precision": None}


def test_quality_compares_at_the_true_labels_size(tmp_path):
    pictures = make_pictures(1, C)
    labelled = LabelledSet(pictures, DataAddress.parse("list:target"))
    assert cv2.imwrite(str(tmp_path / "picture 0.png"), pictures.label(0)[::2, ::2])
    assert label_quality(tmp_path, labelled).accuracy == 1.0


# ema


def ema(stage, **config):
    return EmaLabeler(EmaConfig(**config), stage)


def move(network, seed=0):
    """What a training step does to a network: other parameters, other statistics, one more batch."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in network.state_dict().values():
            if value.is_floating_point():
                value.add_(torch.rand(value.shape, generator=generator))
            else:
                value.add_(1)


def test_parameters_and_floating_buffers_are_averaged_and_counters_copied(stage):
    labeler = ema(stage, momentum=0.9)
    names = stage.network.state_dict().keys()
    assert any("running_mean" in name for name in names) and any("running_var" in name for name in names)
    wanted = {name: value.double() for name, value in labeler.teacher.state_dict().items()}
    for step in range(4):
        move(stage.network, step)
        labeler.after_step(make_context(stage, step))
        momentum = min(1 - 1 / (step + 1), 0.9)
        for name, value in stage.network.state_dict().items():
            averages = value.is_floating_point()
            wanted[name] = momentum * wanted[name] + (1 - momentum) * value.double() if averages else value.double()
    for name, value in labeler.teacher.state_dict().items():
        torch.testing.assert_close(value.double(), wanted[name], rtol=1e-5, atol=1e-6, msg=name)
        if "running" in name:
            assert not torch.equal(value, stage.network.state_dict()[name]), name


def test_the_first_step_makes_the_teacher_a_copy_and_the_ramp_ends_at_the_momentum(stage):
    labeler = ema(stage, momentum=0.99)
    move(stage.network)
    labeler.after_step(make_context(stage, 0))
    for name, value in stage.network.state_dict().items():
        assert torch.equal(labeler.teacher.state_dict()[name], value), name
    before = labeler.teacher.head.weight.clone()
    move(stage.network, 1)
    labeler.after_step(make_context(stage, 5000))
    torch.testing.assert_close(labeler.teacher.head.weight, 0.99 * before + 0.01 * stage.network.head.weight)


def test_the_teacher_is_a_network_of_its_own_without_gradients(stage):
    labeler = ema(stage)
    assert not any(parameter.requires_grad for parameter in labeler.teacher.parameters())
    assert all(parameter.requires_grad for parameter in stage.network.parameters())
    before = copy.deepcopy(labeler.teacher.state_dict())
    move(stage.network)
    assert all(torch.equal(value, before[name]) for name, value in labeler.teacher.state_dict().items())
    context = make_context(stage, forward=lambda pictures: pytest.fail("the student was asked"))
    assert not labeler.label(context).weight.requires_grad
    assert stage.network.training and not labeler.teacher.training


def test_averaging_leaves_the_network_as_it_was(stage):
    teacher = copy.deepcopy(stage.network)
    move(teacher)
    before = copy.deepcopy(stage.network.state_dict())
    average_into(teacher, stage.network, 0.5)
    assert all(torch.equal(value, before[name]) for name, value in stage.network.state_dict().items())


def test_running_norm_labels_with_the_averaged_statistics(stage):
    labeler = ema(stage, threshold=0.25, weighting="pixel")
    move(labeler.teacher)
    context = make_context(stage)
    reference = copy.deepcopy(labeler.teacher).eval()
    confidence, label = reference(context.target).logits.softmax(1).max(dim=1)
    assert torch.equal(labeler.label(context).label, torch.where(confidence >= 0.25, label, 255))


def test_batch_norm_labels_with_the_batchs_statistics_and_leaves_the_averaged_ones_alone(stage):
    labeler = ema(stage, norm="batch")
    move(labeler.teacher)
    context = make_context(stage)
    reference = copy.deepcopy(stage.network).train()
    reference.load_state_dict(labeler.teacher.state_dict())
    before = copy.deepcopy(labeler.teacher.state_dict())
    found = labeler.label(context).label
    assert torch.equal(found, reference(context.target).logits.argmax(dim=1))
    assert not torch.equal(found, reference.eval()(context.target).logits.argmax(dim=1))
    assert all(torch.equal(value, before[name]) for name, value in labeler.teacher.state_dict().items())


def sharp(labeler):
    """The same, with confidences on both sides of 0.7."""
    labeler.teacher.load_state_dict(Teachers("adv")("adv").state_dict())
    return labeler


def test_fraction_weighs_every_pixel_by_the_share_believed_in_the_whole_batch(stage):
    labeler = sharp(ema(stage, threshold=0.7))
    context = make_context(stage, share=lambda value: (value + 0.5) / 2)  # another process believes a half
    confidence, label = labeler.teacher(context.target).logits.softmax(1).max(dim=1)
    share = ((confidence >= 0.7).float().mean() + 0.5) / 2
    assert 0.26 < share < 0.74 and abs(share - 0.5) > 0.01
    found = labeler.label(context)
    assert torch.equal(found.label, label)
    torch.testing.assert_close(found.weight, share.expand_as(found.weight))
    assert float(labeler.after_step(context)["pseudo_share"]) == pytest.approx(float(share))


def test_pixel_weighting_leaves_unsure_pixels_out(stage):
    labeler = sharp(ema(stage, threshold=0.7, weighting="pixel"))
    context = make_context(stage)
    confidence, label = labeler.teacher(context.target).logits.softmax(1).max(dim=1)
    found = labeler.label(context)
    assert torch.equal(found.label, torch.where(confidence >= 0.7, label, 255)) and found.weight is None


def test_ignored_rows_count_for_nothing(stage):
    context = make_context(stage)
    rows = torch.arange(64)
    ignored = (rows < 16) | (rows >= 56)
    fraction = sharp(ema(stage, threshold=0.0, ignore_top=0.25, ignore_bottom=0.125)).label(context)
    assert torch.equal(fraction.weight[0, :, 0], (~ignored).float())
    pixel = sharp(ema(stage, threshold=0.0, weighting="pixel", ignore_top=0.25, ignore_bottom=0.125)).label(context)
    assert torch.equal(pixel.label[1, :, 3] == 255, ignored)
    assert (sharp(ema(stage, threshold=0.5)).label(context).weight > 0).all()


def test_a_step_without_labels_logs_no_share(stage):
    labeler = ema(stage)
    labeler.label(make_context(stage))
    assert labeler.after_step(make_context(stage)).keys() == {"pseudo_share"}
    assert labeler.after_step(make_context(stage, 1)) == {}


def test_labels_under_bf16_are_computed_with_autocast_and_weighed_in_float32(tmp_path):
    stage = make_stage(C, precision="bf16", folder=tmp_path)
    labeler = ema(stage)
    dtypes = []
    labeler.teacher.head.register_forward_hook(lambda module, inputs, output: dtypes.append(output.dtype))
    labels = labeler.label(make_context(stage))
    assert dtypes == [torch.bfloat16] and labels.weight.dtype == torch.float32


def test_a_teacher_goes_on_bit_by_bit_from_its_state(stage):
    labeler = ema(stage, momentum=0.9)
    for step in range(3):
        move(stage.network, step)
        labeler.after_step(make_context(stage, step))
    state = copy.deepcopy(labeler.state_dict())
    again = ema(stage, momentum=0.9)
    again.load_state_dict(state)
    move(stage.network, 7)
    for each in (labeler, again):
        each.after_step(make_context(stage, 3))
    for name, value in labeler.teacher.state_dict().items():
        assert torch.equal(value, again.teacher.state_dict()[name]), name


@pytest.mark.parametrize("deploy", [False, True])
def test_the_teacher_replaces_the_network_only_where_asked(stage, deploy):
    labeler = ema(stage, deploy=deploy, norm="batch")
    move(stage.network)
    labeler.finish(stage.network)
    same = all(
        torch.equal(value, labeler.teacher.state_dict()[name]) for name, value in stage.network.state_dict().items()
    )
    assert same is deploy
    norms = [module for module in stage.network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert all(norm.track_running_stats for norm in norms)


def test_settings_are_plain_data():
    assert dataclasses.asdict(EmaConfig())["threshold"] == 0.968
    assert OfflineConfig().outputs == 1 and OfflineConfig().fuse == "confidence"
