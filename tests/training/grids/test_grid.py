from __future__ import annotations

import re
import statistics
from pathlib import Path

import pytest

from rtda_deploy.errors import ConfigError
from rtda_training.grids.grid import grid_names, is_grid, load_grid
from rtda_training.grids.paper_tables import PUBLISHED, published_row
from rtda_training.grids.places import Places
from rtda_training.grids.results import assemble, differences, seed_interval
from rtda_training.grids.table import (
    csv_table,
    failures,
    gain_lines,
    heat_lines,
    markdown_table,
    notes,
    table_lines,
)
from rtda_training.labels import CITYSCAPES, PROTOCOLS
from rtda_training.plan import load_plan

HEAD = 'source = "toytown:source"\ntarget = "toytown:target"\n'
ROWS = '[[rows]]\nlabel = "Source only"\nrecipe = "source-only"\n[[rows]]\nlabel = "Oracle"\nrecipe = "target-only"\n'


def write(folder: Path, text: str = HEAD + ROWS, name: str = "mine") -> str:
    path = folder / f"{name}.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def grid(folder: Path, text: str = HEAD + ROWS, overrides=(), **fields):
    return load_grid(write(folder, text), overrides, **fields)


# reading a grid


def test_a_grid_is_told_from_a_recipe(tmp_path):
    assert is_grid(write(tmp_path))
    assert is_grid("ablations/toytown")
    assert is_grid("ablations/toytwn"), "so that the nearest grid is named, not the nearest recipe"
    assert not is_grid(write(tmp_path, 'objectives = ["supervised"]\n', "recipe"))
    assert not is_grid("rtda-light-thin")
    assert not is_grid(str(tmp_path / "missing.toml"))


def test_every_row_is_run_with_every_seed_one_seed_after_the_other(tmp_path):
    found = grid(tmp_path, 'seeds = [3, 1]\nset = ["steps=7"]\n' + HEAD + ROWS).runs()
    assert [(run.folder, run.plan.seed) for run in found] == [
        ("source-only-seed3", 3),
        ("oracle-seed3", 3),
        ("source-only-seed1", 1),
        ("oracle-seed1", 1),
    ]
    assert {run.plan.stages[0].steps for run in found} == {7}
    assert found[1].plan.stages[0].labelled == "target"


def test_a_grid_is_named_after_its_file_unless_it_says_otherwise(tmp_path):
    assert grid(tmp_path).name == "mine"
    assert grid(tmp_path, 'name = "else"\n' + HEAD + ROWS).name == "else"


def test_settings_of_a_row_win_over_those_of_the_grid_and_typed_ones_over_all(tmp_path):
    text = 'set = ["steps=7", "batch_size=3"]\n' + HEAD + ROWS + 'set = ["batch_size=5"]\n'
    source, oracle = (run.plan for run in grid(tmp_path, text).runs())
    assert (source.batch_size, oracle.batch_size) == (3, 5)
    source, oracle = (run.plan for run in grid(tmp_path, text, ["steps=9", "batch_size=2"]).runs())
    assert source.stages[0].steps == oracle.stages[0].steps == 9
    assert (source.batch_size, oracle.batch_size) == (2, 2)


def test_what_a_row_sets_itself_is_not_replaced_by_a_flag(tmp_path):
    text = HEAD + ROWS + 'set = ["backbone_weights="]\n'
    source, oracle = (run.plan for run in grid(tmp_path, text, backbone_weights="r101.pth").runs())
    assert (source.backbone_weights, oracle.backbone_weights) == ("r101.pth", "")


def test_keys_of_the_grid_are_set_as_settings_are(tmp_path):
    assert grid(tmp_path, overrides=["seeds=[4, 5]", "name=other"]).seeds == (4, 5)


def test_recipes_beside_the_grid_are_found(tmp_path):
    (tmp_path / "own.toml").write_text('base = "source-only"\nsteps = 11\n', encoding="utf-8")
    text = HEAD + '[[rows]]\nlabel = "own"\nrecipe = "own.toml"\n'
    assert grid(tmp_path, text).runs()[0].plan.stages[0].steps == 11


def test_environment_variables_are_expanded_in_addresses(tmp_path, monkeypatch):
    monkeypatch.setenv("RTDA_DATA", "/data")
    text = 'source = "camvid:$RTDA_DATA/camvid"\ntarget = "camvid:${RTDA_DATA}/camvid?split=val"\n' + ROWS
    found = grid(tmp_path, text)
    assert (found.source, found.target) == ("camvid:/data/camvid", "camvid:/data/camvid?split=val")
    monkeypatch.delenv("RTDA_DATA")
    with pytest.raises(ConfigError, match="RTDA_DATA is not set"):
        grid(tmp_path, text)
    typed = grid(tmp_path, text, source="toytown:source", target="toytown:target")  # then nobody asks for it
    assert typed.source == "toytown:source"


def test_files_beside_the_grid_are_named_by_it_and_a_record_names_them_so_too(tmp_path, monkeypatch):
    monkeypatch.setenv("RTDA_DATA", str(tmp_path))  # the grid's own folder lies below it, and goes first
    source = "folder:$RTDA_DATA/sim?classes=$GRID/classes/sim.json&list=${GRID}/a.txt"
    (tmp_path / "grids").mkdir()
    found = grid(tmp_path / "grids", f'source = "{source}"\ntarget = "toytown:target"\n' + ROWS)
    here = f"{tmp_path}/grids"
    assert found.source == f"folder:{tmp_path}/sim?classes={here}/classes/sim.json&list={here}/a.txt"
    assert Places(tmp_path / "grids").portable(found.source) == source.replace("{GRID}", "GRID")
    assert Places(tmp_path).known("$GRIDS ${GRIDS}") == "$GRIDS ${GRIDS}"


@pytest.mark.parametrize(
    ("text", "error", "fix"),
    [
        ("sorce = 'x:y'\n" + HEAD + ROWS, "setting sorce is unknown", "did you mean source"),
        (HEAD + "[[rows]]\nlabel = 'a'\nrecip = 'source-only'\n", "setting rows.recip is unknown", "mean recipe"),
        (HEAD + "[[rows]]\nrecipe = 'source-only'\n", "rows.label is missing", "label"),
        (HEAD + "[[rows]]\nlabel = 'a'\n", "rows.recipe is missing", "recipe"),
        (HEAD + "rows = []\n", "needs rows", r"\[\[rows\]\]"),
        (HEAD + "rows = 3\n", "list of tables", r"\[\[rows\]\]"),
        ("source = 'toytown:source'\n" + ROWS, "target is missing", "target"),
        ("seeds = []\n" + HEAD + ROWS, "seeds must be different", "seeds"),
        ("seeds = [1, 1]\n" + HEAD + ROWS, "seeds must be different", "seeds"),
        ("seeds = [-1]\n" + HEAD + ROWS, "seeds must be different", "seeds"),
        ("seeds = ['1']\n" + HEAD + ROWS, "seeds must be a list", r"\[0, 1, 2\]"),
        ("seeds = [true]\n" + HEAD + ROWS, "seeds must be a list", r"\[0, 1, 2\]"),
        ("set = 'steps=3'\n" + HEAD + ROWS, "set must be a list", "steps=300"),
        ("set = ['seed=3']\n" + HEAD + ROWS, "seed of every run", r"seeds = \[3\]"),
        (HEAD + ROWS + "set = ['seed=3']\n", "seed of every run", r"seeds = \[3\]"),
        ("typed = ['steps=3']\n" + HEAD + ROWS, "setting typed is unknown", "known: name"),
        ("name = 3\n" + HEAD + ROWS, "name must be of type str", "quotes"),
        ("oracle = 'Oracel'\n" + HEAD + ROWS, "oracle 'Oracel' is no row", "did you mean Oracle"),
        (
            HEAD + ROWS + "[[rows]]\nlabel = 'oracle!'\nrecipe = 'pfr'\n",
            "labels of their own, got 'oracle!'",
            "letters",
        ),
        (HEAD + ROWS + "published = 'rtda/table-1/fdc'\n", "'rtda/table-1/fdc' is unknown", "rtda/table-1/fcd"),
        (HEAD + "rows = [\n", "is no TOML", "training/ablations"),
    ],
)
def test_what_a_grid_cannot_be_is_refused_with_the_nearest_known(tmp_path, text, error, fix):
    with pytest.raises(ConfigError, match=error) as caught:
        grid(tmp_path, text)
    assert re.search(fix, caught.value.hint), caught.value.hint


def test_unknown_grids_are_refused():
    with pytest.raises(ConfigError, match="ablations/toytwn") as caught:
        load_grid("ablations/toytwn")
    assert "did you mean ablations/toytown?" in caught.value.hint


@pytest.mark.parametrize(
    ("line", "error"), [('recipe = "rtda-lihgt"', "rtda-lihgt"), ('recipe = "pfr"\nset = ["stps=3"]', "stps")]
)
def test_what_is_wrong_with_a_recipe_names_the_row(tmp_path, line, error):
    with pytest.raises(ConfigError, match=f"row 'My row': .*{error}"):
        grid(tmp_path, f'{HEAD}[[rows]]\nlabel = "My row"\n{line}\n').runs()


def test_half_typed_domains_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="--target was not: the grid's own is toytown:target"):
        grid(tmp_path, source="folder:mine")


def test_the_test_set_is_the_targets_own_unless_named(tmp_path):
    named = 'test = "toytown:source"\nval = "toytown:target"\n' + HEAD + ROWS
    assert grid(tmp_path).test_address == "toytown:target"
    assert grid(tmp_path, named).test_address == "toytown:source"
    typed = grid(tmp_path, named, source="folder:a", target="folder:b?split=train")
    assert (typed.test_address, typed.val) == ("folder:b", ""), "of the old domains, neither is kept"
    assert grid(tmp_path, named, source="folder:a", target="folder:b", val="folder:c").val == "folder:c"


def test_a_list_of_training_pictures_is_no_test_set(tmp_path):
    text = 'source = "toytown:source"\ntarget = "camvid:x?list=train.txt"\n' + ROWS
    with pytest.raises(ConfigError, match="names no test set"):
        grid(tmp_path, text).test_address  # noqa: B018
    assert grid(tmp_path, text, ["test=camvid:x?list=test.txt"]).test_address == "camvid:x?list=test.txt"


@pytest.mark.parametrize("name", grid_names())
def test_every_grid_of_the_package_can_be_run(name, monkeypatch):
    monkeypatch.setenv("RTDA_DATA", "/data")
    found = load_grid(name)
    runs = found.runs()
    assert len([run for run in runs if run.row in found.rows]) == len(found.rows) * len(found.seeds)
    assert all(run.control or run.without for run in runs)
    assert found.test_address and found.description and found.baseline_row and found.oracle_row


def test_the_toy_grid_has_every_method():
    recipes = {row.recipe for row in load_grid("ablations/toytown").rows}
    wanted = (
        "source-only target-only rtda-fcd rtda-fcd-light rtda-light-thin fda-light ssl-1 ssl-2 ssl-3 pfr bdl bdl-1x1"
    )
    wanted += " advent minent fda-mbt classmix rare-classes feature-distance masked target-bn"
    assert set(wanted.split()) <= recipes


# what the papers printed


WRONG = {"rtda/table-1/target-only", "rtda/table-2/target-only", "bdl/with-ssl/m11-f1", "bdl/with-ssl/m21-f1"}


def test_printed_classes_average_to_the_printed_miou_but_for_four_rows():
    assert {key for key, row in PUBLISHED.items() if not row.averages()} == WRONG


@pytest.mark.parametrize(("key", "mean"), [("rtda/table-1/target-only", 63.47), ("rtda/table-2/target-only", 59.94)])
def test_the_oracles_of_rtda_do_not_average_to_what_is_printed(key, mean):
    row = published_row(key)
    assert row.miou == 64.17
    assert row.mean() == pytest.approx(mean, abs=0.005)


@pytest.mark.parametrize(
    ("key", "miou"),
    [
        ("rtda/table-1/fcd", 31.89),
        ("rtda/table-1/fcd-light", 32.18),
        ("rtda/table-1/light-thin", 33.22),
        ("rtda/table-2/fcd", 29.45),
        ("rtda/table-2/fcd-light", 30.02),
        ("rtda/table-2/light-thin", 31.66),
        ("slides/results/source-only", 13.4),
        ("slides/results/fda-10", 27.4),
        ("ssl/table-2/ssl-1", 31.5),
        ("pfr/table-1/pfr", 44.5),
        ("bdl/with-ssl/m22-f2", 48.5),
    ],
)
def test_printed_rows_are_those_of_the_papers(key, miou):
    assert published_row(key).miou == miou


def test_printed_rows_have_whole_protocols_and_plausible_figures():
    for key, row in PUBLISHED.items():
        assert row.key == key
        assert not row.iou or set(row.iou) == set(PROTOCOLS[row.protocol]), key
        assert all(0 <= value <= 100 for value in row.iou.values())
        assert (row.source == "") == ("target-only" in key)


# the table


def scores(base: float, absent: str = "") -> dict:
    iou = {name: None if name == absent else base + index for index, name in enumerate(CITYSCAPES.names)}
    known = [value for value in iou.values() if value is not None]
    return {
        "miou": round(statistics.fmean(known), 2),
        "miou19": round(statistics.fmean(known), 2),
        "miou16": round(statistics.fmean(iou[n] for n in PROTOCOLS[16] if iou[n] is not None), 2),
        "miou13": round(statistics.fmean(iou[n] for n in PROTOCOLS[13] if iou[n] is not None), 2),
        "pixel_accuracy": base + 40,
        "iou": iou,
        "pixels": 7,
    }


@pytest.fixture()
def measured(tmp_path):
    """Two seeds: source-only 19 and 23 (means of 10..28 and 14..32), oracle only once: 59."""
    text = "seeds = [0, 1]\ncontrol = false\n" + HEAD + ROWS + 'published = "rtda/table-1/target-only"\n'
    text += '[[rows]]\nlabel = "RTDA"\nrecipe = "rtda-light-thin"\npublished = "rtda/table-1/light-thin"\n'
    chosen = grid(tmp_path, text)
    found = {
        "source-only-seed0": {"scores": scores(10.0), "seconds_per_step": 0.5},
        "source-only-seed1": {"scores": scores(14.0), "seconds_per_step": 0.7},
        "oracle-seed0": {"scores": scores(50.0), "seconds_per_step": 0.6},
        "oracle-seed1": {"error": "seg is not a finite number"},
        "rtda-seed0": {"scores": scores(16.0), "seconds_per_step": 1.0},
        "rtda-seed1": {"scores": scores(17.0), "seconds_per_step": 1.2},
    }
    return assemble(chosen, chosen.runs(), found)


def test_means_and_spreads_are_those_of_the_seeds(measured):
    row = measured["rows"][0]
    assert row["miou"] == {"mean": 21.0, "spread": round(8**0.5, 2), "values": [19.0, 23.0]}
    assert row["iou"]["road"]["mean"] == 12.0
    assert row["pixel_accuracy"]["mean"] == 52.0
    assert row["seconds_per_step"] == 0.6
    assert measured["rows"][1]["miou"] == {"mean": 59.0, "spread": None, "values": [59.0]}


def test_gains_and_shares_are_over_the_seeds_that_both_rows_have(measured):
    source, oracle, rtda = measured["rows"]
    assert source["gain"] is None
    assert rtda["gain"] == pytest.approx((25 - 19 + 26 - 23) / 2)
    assert oracle["gain"] == pytest.approx(59 - 19)
    assert rtda["of_oracle"] == pytest.approx(round(100 * 25 / 59, 1)), "seed 1 of the oracle failed"
    assert oracle["of_oracle"] == 100.0


def test_the_lines_stand_as_in_the_paper_with_the_printed_row_below(measured):
    headers, lines = table_lines(measured)
    assert headers == ["", *CITYSCAPES.names, "mIoU19", "mIoU16", "mIoU13", "pixel acc."]
    assert [line[0] for line in lines] == [
        "Source only",
        "Oracle",
        "printed: Target Only*",
        "RTDA",
        "printed: FCD-LightThin",
    ]
    assert lines[0][1] == "12.0 ± 2.8"
    assert lines[0][-4:] == ["21.0 ± 2.8", "20.2 ± 2.8", "21.2 ± 2.8", "52.0 ± 2.8"]  # 12 + 132/16, 12 + 120/13
    assert lines[4][1] == "83.9" and lines[4][-4:] == ["33.2", "–", "–", "–"]
    assert all(len(line) == len(headers) for line in lines)


def test_what_a_row_gains_is_told_with_what_the_printed_one_had(measured):
    headers, lines = gain_lines(measured)
    rtda = dict(zip(headers, lines[2]))
    assert (rtda["gain"], rtda["of oracle"], rtda["seeds"], rtda["steps"]) == ("+4.5", "42 %", "2/2", "3000")
    assert rtda["printed"] == "33.2"
    assert rtda["printed with"] == "gta5 -> cityscapes, 1024x512, resnet101, pretrained weights"
    assert dict(zip(headers, lines[0]))["printed with"] == "–"
    assert dict(zip(headers, lines[1]))["printed"] == "64.2*"


def test_notes_name_printed_rows_that_do_not_average_and_what_failed(measured):
    text = "\n".join(notes(measured))
    assert "the printed classes average to 63.47, not to the printed 64.17" in text
    assert "failed: Oracle (seed 1): seg is not a finite number" in text
    assert "59.94" not in text
    assert failures(measured) == {"seg is not a finite number": ["Oracle (seed 1)"]}


def test_classes_that_no_label_holds_are_in_no_mean_and_said(tmp_path):
    chosen = grid(tmp_path)
    found = {run.folder: {"scores": scores(10.0, absent="train")} for run in chosen.runs()}
    results = assemble(chosen, chosen.runs(), found)
    assert results["rows"][0]["iou"]["train"] == {"mean": None, "spread": None, "values": []}
    assert "not in the labels, and in no mean: train." in notes(results)
    assert "| – |" in markdown_table(results)


def test_a_table_of_nothing_can_be_written(tmp_path):
    chosen = grid(tmp_path)
    results = assemble(chosen, chosen.runs(), {"source-only-seed0": {"status": "running"}})
    headers, lines = gain_lines(results)
    assert [line[headers.index("mIoU")] for line in lines] == ["running", "waiting"]
    assert markdown_table(results).startswith("# mine\n") and len(csv_table(results)) == 3


def test_markdown_and_csv_have_one_width(measured):
    for block in markdown_table(measured).split("\n\n")[1:3]:
        assert len({line.count("|") for line in block.splitlines()}) == 1
    lines = csv_table(measured)
    assert len({len(line) for line in lines}) == 1
    first = dict(zip(lines[0], lines[1]))
    assert (first["kind"], first["miou19"], first["road"], first["gain"]) == ("measured", 21.0, 12.0, "")
    printed = next(dict(zip(lines[0], line)) for line in lines if line[1] == "rtda/table-1/light-thin")
    assert (printed["kind"], printed["miou19"], printed["miou16"], printed["road"]) == ("printed", 33.22, "", 83.92)


def test_other_class_lists_have_one_mean(tmp_path):
    chosen = grid(tmp_path)
    values = {"miou": 40.0, "pixel_accuracy": 80.0, "iou": {"Sky": 50.0, "Road": 30.0}}
    results = assemble(chosen, chosen.runs(), {run.folder: {"scores": values} for run in chosen.runs()})
    assert table_lines(results)[0] == ["", "Sky", "Road", "mIoU", "pixel acc."]


def test_what_differs_from_the_printed_setting_is_named_and_nothing_else():
    domains = {"source": "gta5:a", "target": "cityscapes:b", "backbone_weights": "r101.pth"}
    same = ["backbone=resnet101", "size=1024x512"]
    row = published_row("rtda/table-1/light-thin")
    assert differences(row, load_plan("rtda-light-thin", same, **domains), "cityscapes:b") == []
    found = differences(row, load_plan("rtda-light-thin", ["size=512x256"], **domains), "cityscapes:b")
    assert found == [("size", "512x256", "1024x512"), ("backbone", "resnet18", "resnet101")]
    toys = {"source": "toytown:source", "target": "toytown:target", "backbone_weights": "r101.pth"}
    found = differences(row, load_plan("rtda-light-thin", same, **toys), "toytown:target")
    assert found == [("data", "toytown -> toytown", "gta5 -> cityscapes")]
    oracle = published_row("rtda/table-1/target-only")
    found = differences(
        oracle, load_plan("target-only", same, **{**domains, "source": "toytown:source"}), "cityscapes:b"
    )
    assert found == [], "what an oracle's source would be decides nothing"
    assert differences(oracle, load_plan("target-only", same, **domains), "camvid:x") == [
        ("data", "cityscapes, scored on camvid", "cityscapes")
    ]
    random = load_plan("target-only", same, source="gta5:a", target="cityscapes:b")
    assert differences(oracle, random, "cityscapes:b") == [("start", "random weights", "pretrained weights")]


def test_the_set_that_was_scored_is_named_with_its_split(measured, tmp_path):
    assert measured["scored_on"] == "toytown:target (test)"
    chosen = grid(tmp_path, HEAD.replace("toytown:target", "cityscapes:x") + ROWS)
    taken = {"scores": {**scores(10.0), "data": "cityscapes:x?split=val"}}
    results = assemble(chosen, chosen.runs(), {"oracle-seed0": taken})
    assert (results["test"], results["scored_on"]) == ("cityscapes:x", "cityscapes:x?split=val")
    assert notes(results)[0].startswith("IoU in percent on cityscapes:x?split=val, last checkpoint")
    chosen = grid(tmp_path, 'test = "camvid:x?list=night.txt"\n' + HEAD + ROWS)
    assert assemble(chosen, chosen.runs(), {})["scored_on"] == "camvid:x?list=night.txt"


def test_the_page_has_the_same_figures_as_the_table(measured):
    columns, names, values = heat_lines(measured)
    assert names == ["Source only", "Oracle", "printed*", "RTDA", "printed"]
    assert columns[-4:] == ["mIoU19", "mIoU16", "mIoU13", "pixel acc."]
    assert values[0][:2] == [12.0, 13.0] and values[0][-1] == 52.0
    assert values[4][0] == 83.9 and values[4][-4:] == [33.2, None, None, None]


def test_three_seeds_give_the_interval_of_their_paired_differences():
    assert seed_interval([1.0, 2.0]) is None
    low, high = seed_interval([1.0, 2.0, 3.0])
    assert (low + high) / 2 == pytest.approx(2.0) and high - 2 == pytest.approx(4.303 / 3**0.5, abs=0.01)
    assert seed_interval([1.5, 1.5, 1.5]) == [1.5, 1.5]
