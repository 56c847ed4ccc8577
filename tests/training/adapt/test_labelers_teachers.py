"""Networks teach networks: labels of another checkpoint or file, and masks of other programs."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pickle
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from interrupting import at_step, interrupt
from training.settings import class_names, make_pictures, make_stage, with_fields, write_domains

from rtda_deploy.cli.candidates import open_candidate
from rtda_deploy.errors import CheckpointError, ConfigError, DataError, FileAccessError, TrainingError
from rtda_deploy.files import sha256_file
from rtda_deploy.spec import ModelSpec
from rtda_training.adapt.labelers.folder import FolderConfig, FolderLabeler
from rtda_training.adapt.labelers.network import NetworkConfig, NetworkLabeler
from rtda_training.adapt.labelers.quality import label_quality
from rtda_training.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from rtda_training.data.address import DataAddress
from rtda_training.data.class_map import class_map, describe_map
from rtda_training.data.config import InputConfig
from rtda_training.data.given_masks import given_masks
from rtda_training.judge import Candidate
from rtda_training.labels import CAMVID, CITYSCAPES, ClassList
from rtda_training.loop.validate import mask_of
from rtda_training.models import build_network
from rtda_training.plan import changed_plan, control_of, load_plan, plan_from_table
from rtda_training.readers import LabelledSet, UnlabelledSet
from rtda_training.run import load, train
from rtda_training.trainer import Trainer

C = 5


def make_teacher(path: Path, names, size_hw=(32, 64), **contract) -> Path:
    """A BiSeNet with random weights whose classes differ from pixel to pixel; another contract than the student's."""
    torch.manual_seed(3)
    network = build_network("bisenet", "resnet18", "rtda", len(names)).eval()
    asked = {"channel_order": "bgr", "pixel_scale": 1.0, "mean": (104.0, 116.7, 122.7), "std": (40.0, 40.0, 40.0)}
    spec = ModelSpec(
        size_hw=size_hw,
        class_names=tuple(names),
        palette=((1, 2, 3),) * len(names),
        output_stride=8,
        provenance={"architecture": network.architecture},
        **{**asked, **contract},
    )
    write_checkpoint(path, Checkpoint(spec, network.state_dict()))
    return path


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """Of four classes: three of the student's in another order, and one that it lacks."""
    return make_teacher(tmp_path_factory.mktemp("teacher") / "teacher.pth", ("building", "boat", "road", "wall"))


@pytest.fixture
def stage(tmp_path):
    lines = []
    return with_fields(make_stage(C, folder=tmp_path), tell=lines.append)


def told(stage):
    return stage.tell.__self__


def labelled_by(stage, path, **config):
    settings = NetworkLabeler.resolved(NetworkConfig(str(path), **config))
    return NetworkLabeler(settings, stage).prepare(stage.target)


# a network


def test_labels_are_the_teachers_masks_under_its_own_contract_in_the_students_classes(stage, teacher):
    labelled = labelled_by(stage, teacher)
    network, spec = load(teacher)
    assert (spec.size_hw, spec.channel_order) == ((32, 64), "bgr") != (stage.size_hw, "rgb")
    contract, seen = InputConfig("bgr", 1.0, (104.0, 116.7, 122.7), (40.0, 40.0, 40.0), "linear"), set()
    for index in range(len(stage.target)):
        with torch.no_grad():
            mask = mask_of(network, stage.target.frame(index), spec.size_hw, contract)
        wanted = np.array([2, 255, 0, 3], np.uint8)[mask]  # building, none, road, wall
        assert (labelled.label(index) == wanted).mean() > 0.999
        seen |= set(np.unique(labelled.label(index)).tolist())
    assert len(seen) > 1, "a teacher that says one thing would show nothing"
    assert any("4 -> 5 classes by name; ignored: boat; never taught: sidewalk, fence" in line for line in told(stage))
    assert "% of the pixels labelled" in told(stage)[-1] and "none: " in told(stage)[-1]


def test_every_label_weighs_1_and_nothing_of_a_mean_teacher_is_kept(stage, teacher):
    labeler = NetworkLabeler(NetworkConfig(str(teacher)), stage)
    label = torch.zeros(2, 64, 64, dtype=torch.long)
    from training.settings import make_context

    found = labeler.label(make_context(stage, target_label=label))
    assert found.label is label and found.weight is None
    assert labeler.state_dict() == {} and list(labeler.after_step(make_context(stage))) == []


def test_classes_may_be_mapped_by_hand_and_none_in_common_is_refused(stage, teacher, tmp_path):
    labelled_by(stage, teacher, map=("boat=fence", "wall=ignore"))
    assert any("boat -> fence; ignored: wall; never taught: sidewalk, wall" in line for line in told(stage))
    with pytest.raises(ConfigError, match="'ship' is no class of"):
        labelled_by(with_fields(stage, folder=tmp_path / "b"), teacher, map=("ship=fence",))
    stranger = make_teacher(tmp_path / "stranger.pth", ("boat", "buoy"))
    with pytest.raises(ConfigError, match=r"no class of .* is one of the network's: boat, buoy") as caught:
        NetworkLabeler.preflight(NetworkConfig(str(stranger)), class_names(C))
    assert 'network-labeler.map=["boat=road"]' in caught.value.hint


def test_a_teacher_is_opened_by_whoever_can_and_named_where_nobody_can(stage, tmp_path):
    model = tmp_path / "teacher.onnx"
    model.write_bytes(b"any")
    with pytest.raises(ConfigError, match="runs no other file"):
        labelled_by(stage, model)
    opened = []

    @contextlib.contextmanager
    def open_model(path):
        opened.append(path)
        answer = np.zeros((2, 4, 4), np.float32)
        yield Candidate(path.name, ("wall", "road"), lambda frame: answer, lambda frame, hw: np.ones(hw, np.uint8))
        opened.append("closed")

    labelled = labelled_by(with_fields(stage, open_model=open_model), model)
    assert opened == [model, "closed"] and (labelled.label(3) == 0).all()


@pytest.mark.parametrize("opener", [None, open_candidate], ids=["in training", "by the command line"])
def test_a_teacher_that_gives_nan_for_any_picture_is_named_with_it(tmp_path, opener):
    """Its weights are numbers, and what it makes of a dark picture is too: only a bright one is too much for it."""
    path = make_teacher(tmp_path / "teacher.pth", ("road", "wall"), mean=(0.0, 0.0, 0.0))
    found = read_checkpoint(path)
    first = next(key for key, value in found.weights.items() if value.ndim == 4)
    write_checkpoint(path, dataclasses.replace(found, weights={**found.weights, first: found.weights[first] * 1e38}))
    pictures = make_pictures(6)
    pictures.frames[:3] = [np.zeros_like(frame) for frame in pictures.frames[:3]]
    stage = make_stage(C, folder=tmp_path, target=UnlabelledSet(pictures, DataAddress.parse("list:target")))
    if opener is not None:
        model, path = path, tmp_path / "any.onnx"
        path.write_bytes(b"any")
        stage = with_fields(stage, open_model=lambda asked: opener(model))
    with pytest.raises(TrainingError, match=r"cannot label picture 3: teacher.pth gives NaN or infinity") as caught:
        labelled_by(stage, path)
    assert "take an earlier checkpoint" in caught.value.hint


def test_labels_are_made_once_and_a_killed_dump_goes_on(stage, tmp_path):
    model, asked = tmp_path / "teacher.onnx", []
    model.write_bytes(b"any")

    @contextlib.contextmanager
    def mortal(path):
        def mask(frame, hw):
            if len(asked) == 4:
                asked.append("killed")
                raise KeyboardInterrupt
            asked.append(hw)
            return np.full(hw, len(asked) % 2, np.uint8)

        yield Candidate("t", ("road", "wall"), lambda frame: np.zeros((2, 4, 4)), mask)

    mine = with_fields(stage, open_model=mortal)
    with pytest.raises(KeyboardInterrupt):
        labelled_by(mine, model)
    assert not (stage.folder / "labels.json").exists()
    labelled = labelled_by(mine, model)
    assert len(asked) == 1 + len(stage.target), "four were kept"
    labelled_by(mine, model)
    assert len(asked) == 1 + len(stage.target) and told(stage)[-1] == told(stage)[-2]
    shares = json.loads((stage.folder / "labels.json").read_text())["pixels"]
    labels = np.stack([labelled.label(index) for index in range(len(labelled))])
    assert shares["road"] == (labels == 0).sum() and shares["wall"] == (labels == 3).sum() > 0
    model.write_bytes(b"another")
    labelled_by(mine, model)
    assert len(asked) == 1 + 2 * len(stage.target), "labels of another teacher are made anew"


def test_pictures_are_those_that_are_stored_and_masks_no_finer_than_needed(stage, teacher):
    large = UnlabelledSet(make_pictures(6, C, (192, 192), seed=1), DataAddress.parse("list:target"))
    labelled = labelled_by(with_fields(stage, as_stored=lambda pictures: large), teacher)
    assert labelled.label(0).shape == (128, 128)


def test_a_picture_that_cannot_be_read_is_not_labelled_and_named(stage, teacher):
    pictures = make_pictures(3, C, seed=1)

    class Torn(type(pictures)):
        def frame(self, index):
            if index == 1:
                raise DataError("picture 1 is torn")
            return super().frame(index)

    pictures.__class__ = Torn
    torn = UnlabelledSet(pictures, DataAddress.parse("list:target"))
    labelled = NetworkLabeler(NetworkConfig(str(teacher)), stage).prepare(torn)
    assert (labelled.label(1) == 255).all() and (labelled.label(0) != 255).any()
    assert "skipped picture 1 is torn" in told(stage)


# in a run


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return write_domains(tmp_path_factory.mktemp("data"), 4, 6, 32)


def plan(folders, *overrides, recipe="classmix"):
    common = ["size=64x64", "batch_size=2", "device=cpu", "val_every=0", "save_every=2", "optimizer.warmup_steps=0"]
    domains = {name: f"folder:{folders / name}" for name in ("source", "target")}
    return load_plan(recipe, [*common, *overrides], **domains)


def by_network(folders, path, *overrides):
    own = ["labeler=network", f"network-labeler.checkpoint={path}", "steps=3"]
    return plan(folders, *own, *overrides)


def test_a_recipe_takes_the_teacher_by_its_short_name_and_remembers_its_file(folders, teacher):
    found = by_network(folders, teacher)
    assert found.stages[0].labeler == "network" and found.network == "bisenet"
    assert found.stages[0].settings["network-labeler"].sha256 == sha256_file(teacher)
    assert plan_from_table(found.to_dict()) == found
    assert changed_plan(found, [f"network-labeler.checkpoint={teacher}", "labeler=network"]) == found
    control = control_of(found).plan
    assert control.stages[0].labeler == "network" and control.stages[0].settings["mixed"].weight == 0


def test_the_recommended_recipe_takes_another_teacher_in_its_last_stage(folders, teacher):
    name = load_plan("recommended").stages[-1].name
    found = load_plan("recommended", [f"{name}.labeler=network", f"network-labeler.checkpoint={teacher}"])
    assert found.stages[-1].names_in("labeler") == ("network-labeler",)
    assert found.stages[0].names_in("labeler") == ()


@pytest.mark.parametrize("objective", ["mixed", "pseudo"])
def test_a_run_with_a_teacher_is_resumed_bit_by_bit_and_not_with_another_one(folders, teacher, tmp_path, objective):
    mine = tmp_path / "mine.pth"
    shutil.copy(teacher, mine)
    slots = [] if objective == "mixed" else ["mixer=none", 'objectives=["supervised","pseudo"]', "network=bisenet"]
    found = by_network(folders, mine, "cache=true", *slots)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    Trainer(found, whole).run()
    rows = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1][objective] > 0
    with at_step(2, interrupt), pytest.raises(KeyboardInterrupt):
        Trainer(found, parts).run()
    state = read_checkpoint(parts / "last.pth")
    Trainer(found, parts).run(state)
    one, other = (read_checkpoint(folder / "last.pth").weights for folder in (whole, parts))
    assert all(torch.equal(one[name], other[name]) for name in one)
    make_teacher(mine, ("building", "boat", "road", "wall"), size_hw=(64, 64))
    with pytest.raises(CheckpointError, match="is not the file that this run began with"):
        Trainer(found, parts)


def test_a_missing_teacher_and_one_that_would_be_written_over_are_refused(folders, teacher, tmp_path):
    with pytest.raises(FileAccessError, match="nowhere"):
        Trainer(by_network(folders, tmp_path / "nowhere.pth"), tmp_path / "run")
    with pytest.raises(ConfigError, match="no network"):
        Trainer(plan(folders, "labeler=network"), tmp_path / "run")
    own = tmp_path / "again" / "last.pth"
    own.parent.mkdir()
    shutil.copy(teacher, own)
    domains = {name: f"folder:{folders / name}" for name in ("source", "target")}
    with pytest.raises(ConfigError, match="network-labeler reads"):
        train(
            "classmix", out=own.parent, force=True, labeler="network", **{"network-labeler.checkpoint": own}, **domains
        )


# masks of other programs


def named_pictures(*keys, size_hw=(64, 64)):
    pictures = make_pictures(len(keys), C, size_hw)
    pictures.name = pictures.key = lambda index: keys[index]
    return UnlabelledSet(pictures, DataAddress.parse("list:target"))


def write(path, mask):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.asarray(mask, np.uint8))


def masks(stage, root, target, **config):
    return FolderLabeler(FolderConfig(str(root), **config), stage).prepare(target)


@pytest.fixture
def theirs(tmp_path):
    """Masks of another program: two pictures, three classes of its own."""
    root = tmp_path / "theirs"
    for name, value in (("a", 0), ("b", 2)):
        write(root / f"{name}.png", np.full((32, 32), value))
    write(root / "b.png", np.pad(np.full((32, 16), 1), ((0, 0), (0, 16)), constant_values=2))
    (root / "classes.json").write_text('{"names": ["street", "wall", "water"]}')
    return root


def test_masks_of_another_program_are_joined_by_name_and_by_hand(stage, theirs):
    found = masks(stage, theirs, named_pictures("a", "b"), map=("street=road",))
    assert found.label(0).dtype == np.uint8
    assert (found.label(0) == 0).all()
    assert (found.label(1)[:, :16] == 3).all() and (found.label(1)[:, 16:] == 255).all()
    read = given_masks(theirs, class_names(C), typed=("street=road",)).read
    read = pickle.loads(pickle.dumps(read))  # as a worker process gets it
    np.testing.assert_array_equal(read(theirs / "b.png"), found.label(1))
    assert told(stage) == [
        "masks   3 -> 5 classes: street -> road; ignored: water; never taught: sidewalk, building, fence",
        f"labels  {theirs}: 75.0 % of the pixels labelled: road 50.0 %, wall 25.0 %; none: sidewalk, building, fence",
    ]


def test_confidences_leave_out_what_the_program_was_not_sure_of(stage, theirs, tmp_path):
    for name in ("a", "b"):
        write(tmp_path / "sure" / f"{name}.png", np.pad(np.full((16, 32), 229), ((0, 16), (0, 0)), constant_values=230))
    settings = {"confidences": str(tmp_path / "sure"), "threshold": 0.9, "map": ("street=road",)}
    found = masks(stage, theirs, named_pictures("a", "b"), **settings)
    assert (found.label(0)[:16] == 255).all() and (found.label(0)[16:] == 0).all()
    write(tmp_path / "sure" / "b.png", np.zeros((8, 8)))
    with pytest.raises(DataError, match=r"confidences .*b\.png are uint8 \(8, 8\), their mask is 32x32"):
        masks(stage, theirs, named_pictures("a", "b"), **settings)
    (tmp_path / "sure" / "a.png").unlink()
    with pytest.raises(DataError, match="have no confidences in"):
        masks(stage, theirs, named_pictures("a", "b"), **settings)
    with pytest.raises(ConfigError, match=r"folder\.confidences is given and folder\.threshold is not"):
        masks(stage, theirs, named_pictures("a"), confidences="x")


def test_ids_outside_of_the_list_unknown_names_and_nothing_in_common_are_refused(stage, theirs, tmp_path):
    target = named_pictures("a", "b")
    with pytest.raises(ConfigError, match=r"folder\.map: 'avenue' is no class of .*classes\.json"):
        masks(stage, theirs, target, map=("avenue=road",))
    with pytest.raises(ConfigError, match=r"folder\.map: 'Road' is no class of the network"):
        masks(stage, theirs, target, map=("street=Road",))
    with pytest.raises(ConfigError, match="is not teacher class=ours"):
        masks(stage, theirs, target, map=("street",))
    with pytest.raises(ConfigError, match=r"no class of .* is one of the network's: street, wall, water"):
        masks(stage, theirs, target, map=("wall=",))
    write(theirs / "b.png", np.full((32, 32), 3))
    with pytest.raises(DataError, match=r"b\.png has values outside its 3 classes: 3"):
        masks(stage, theirs, target)
    (theirs / "classes.json").unlink()
    with pytest.raises(ConfigError, match="nothing says what the ids"):
        masks(stage, theirs, target, map=("street=road",))
    other = tmp_path / "list.json"
    other.write_text('{"ids": {"0": "water", "1": "lake", "2": "wall", "3": "sea"}}')
    with pytest.raises(DataError, match="no pixel of the 1 masks"):
        masks(stage, theirs, named_pictures("a"), classes=str(other))


@pytest.mark.parametrize(("size_hw", "fits"), [((48, 64), True), ((24, 32), True), ((33, 43), True), ((48, 48), False)])
def test_a_mask_of_another_size_is_taken_where_its_aspect_is_the_pictures(stage, tmp_path, size_hw, fits):
    write(tmp_path / "m" / "a.png", np.zeros(size_hw))
    target = named_pictures("a", size_hw=(96, 128))
    if fits:
        assert masks(stage, tmp_path / "m", target).label(0).shape == size_hw
        return
    with pytest.raises(DataError, match=r"a\.png is 48x48, its picture a is 128x96: another aspect"):
        masks(stage, tmp_path / "m", target)


def test_sizes_are_held_to_the_pictures_as_stored_and_not_to_their_cache(stage, tmp_path):
    write(tmp_path / "m" / "a.png", np.zeros((48, 64)))
    stored = named_pictures("a", size_hw=(96, 128))
    masks(with_fields(stage, as_stored=lambda pictures: stored), tmp_path / "m", named_pictures("a"))
    with pytest.raises(DataError, match="another aspect"):
        masks(stage, tmp_path / "m", named_pictures("a"))


def test_a_wrong_folder_stops_a_run_before_its_first_stage(folders, tmp_path):
    slots = ["labeler=folder", "mixer=none", 'objectives=["supervised","pseudo"]']
    with pytest.raises(DataError, match="is no folder"):
        Trainer(plan(folders, *slots, f"folder.path={tmp_path / 'nowhere'}"), tmp_path / "run")


def test_data_labels_reads_masks_of_other_programs_too(theirs):
    pictures = make_pictures(2, C, (32, 32))
    pictures.name = pictures.key = lambda index: "ab"[index]
    pictures.labels = [np.full((32, 32), 3, np.uint8)] * 2
    quality = label_quality(theirs, LabelledSet(pictures, DataAddress.parse("list:target")))
    assert quality.coverage == pytest.approx(0.25) and quality.accuracy == 1.0


# class maps


def test_a_class_map_takes_names_then_known_partners_then_what_was_typed():
    table = class_map(CITYSCAPES, CAMVID, ("train=ignore", "terrain=Pavement"), "it", "map")
    named = {name: (CAMVID.names[table[i]] if table[i] != 255 else "") for i, name in enumerate(CITYSCAPES.names)}
    assert named["rider"] == "Bicyclist" and named["train"] == "" and named["terrain"] == "Pavement"
    assert (table[19:] == 255).all()
    text = describe_map(ClassList(("a", "b"), ((0, 0, 0),) * 2), ClassList(("b",), ((0, 0, 0),)), np.array([255, 0]))
    assert text == "2 -> 1 classes by name; ignored: a"
