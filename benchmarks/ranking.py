"""How well networks are told apart without labels: every selector against the true mIoU of many checkpoints.

    python benchmarks/ranking.py toytown runs/ranking-toytown --rows docs/results/rows/ranking.csv

FOLDERS hold run folders; their stage-*.pth are the candidates, or last.pth where there are none. The first of all is
source-only (``--first``). Labels are used for the true mIoU alone. For each selector: Spearman's rank correlation with
the true mIoU, regret (the true mIoU of the best candidate less that of the chosen one), and the same over random pools
of eight candidates, as a user would have them, each with source-only: mean and largest regret, and how often the
chosen one is worse than source-only.

``--mixes ADDRESS`` adds each run's last network with its batch norms mixed with the statistics of 64 of these pictures,
as a run of ``train`` ranks them, and then says run by run what a rule costs: the network that the run started from,
those that it left and the mixes.

``--consecutive ADDRESS``, every frame of a drive, measures temporal consistency too, alone and in the rule: how many
pixels change their class from frame to frame behind optical flow; the same corrected for collapse, as the rule's
steadiness is; and the mean over classes. ``rank`` does not use it.
"""

from __future__ import annotations

import argparse
import csv
import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import cv2
import numpy as np
import torch
from tables import table, wide

from rtda_deploy.cli.candidates import candidates
from rtda_deploy.errors import EngineError, RtdaError
from rtda_training.checkpoint import read_checkpoint, write_checkpoint
from rtda_training.data.batches import normalise
from rtda_training.judge.answers import Answers, Frames, answers_of, entropy
from rtda_training.judge.check import check_counts, miou_of
from rtda_training.judge.flicker import changes, flow_between
from rtda_training.judge.ranking import RULE, judged_of, left_out, places
from rtda_training.judge.resample import one_of_each
from rtda_training.judge.selectors import SELECTORS
from rtda_training.labels import ClassList
from rtda_training.loop.choosing import contract_of, from_file
from rtda_training.loop.norm_candidates import MIXES, norm_mixes
from rtda_training.readers import open_labelled, open_unlabelled

_POOL, _POOLS = 8, 300
_MEASURED = 64  # pictures that batch norms are mixed with
RULES = {
    **{key: (key,) for key in SELECTORS},
    "ensemble, both": ("ensemble-miou", "ensemble-pixels"),
    "ensemble-miou and infomax": ("ensemble-miou", "infomax"),
    "ensemble-miou and views": ("ensemble-miou", "views"),
    "ensemble-miou and norms": ("ensemble-miou", "norms"),
    "the rule": RULE,
    "the rule as it is applied": (),  # without norms where they say nothing of some candidate
    "the rule without norms": tuple(key for key in RULE if key != "norms"),
    "agreement twice, views": ("ensemble-miou", "ensemble-pixels", "views"),
    "the rule without infomax": ("ensemble-miou", "views", "norms"),
    "agreement twice, views, infomax": ("ensemble-miou", "ensemble-miou", "views", "infomax"),
    "the rule, agreement twice": ("ensemble-miou", *RULE),
    "the rule, norms half": (*(key for key in RULE if key != "norms"), *RULE),
    "agreement and infomax twice, views": ("ensemble-miou", "infomax", "ensemble-miou", "infomax", "views"),
    "the rule, both agreements": ("ensemble-pixels", *RULE),
}
RUN_COLUMNS = {
    "selector": "{selector}",
    ">runs": "{runs}",
    ">regret": "{regret:.2f}",
    ">largest": "{largest:.2f}",
    ">worse than the first by at most": "{worst_loss:.2f}",
}
FLICKER = ("flicker", "flicker, corrected", "flicker by class")
FLICKER_RULES = {
    **{key: (key,) for key in FLICKER},
    **{f"the rule and {key}": (*RULE, key) for key in FLICKER},
    **{f"the rule, {key} for views": tuple(key if own == "views" else own for own in RULE) for key in FLICKER},
    "the rule without views": tuple(own for own in RULE if own != "views"),
}
_MASK_HW = (180, 240)  # that changes are counted at
COLUMNS = {
    "selector": "{selector}",
    "guards": "{guards}",
    ">Spearman": "{spearman:.2f}",
    ">regret": "{regret:.2f}",
    ">regret, pools of 8": "{pool_regret:.2f}",
    ">largest": "{pool_regret_max:.2f}",
    ">worse than source-only": "{worse_than_first:%1}",
    ">by at most": "{worst_loss:.2f}",
}


def checkpoints(folders: list[Path], *, last: bool = False) -> list[Path]:
    """The stages' checkpoints of every run below the folders, each network once; ``last``: and each last.pth."""
    found = []
    for folder in folders:
        for run in sorted({path.parent for path in folder.rglob("*.pth")}):
            stages = sorted(run.glob("stage-*.pth"))
            found += stages + (sorted(run.glob("last.pth")) if last or not stages else [])
    return found


def measure(paths: list[Path], footage: str, truth: str, most: int, kept: Path) -> tuple[list, list, list, tuple, list]:
    """Of each network that can be judged: answers, true mIoU and pixel accuracy in percent; class names, and paths.

    What was measured is kept in a folder, one file a network, and not measured again.
    """
    frames = Frames(open_unlabelled(footage), most)
    answers, mious, pixels, judged, labelled, names = [], [], [], [], None, ()
    kept.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for number, path in enumerate(paths):
            file = kept / f"{str(path.resolve()).replace('/', '_')}.npz"
            if not file.exists():
                try:
                    candidate = next(candidates([path]))
                except RtdaError as err:
                    print(f"left out {path}: {err.message}", flush=True)
                    continue
                if labelled is None:
                    classes = ClassList(candidate.class_names, tuple((0, 0, 0) for _ in candidate.class_names))
                    labelled = open_labelled(truth, classes=classes)
                try:
                    found = answers_of(candidate, frames, Path(folder) / str(number))
                except EngineError as err:
                    print(f"dropped {candidate.name}: {err.message}", flush=True)
                    continue
                counts = check_counts(candidate.mask, labelled).sum(axis=0)
                values = {key: getattr(found, key) for key in found.__dataclass_fields__ if key != "name"}
                np.savez_compressed(file, counts=counts, names=candidate.class_names, **values)
            stored = np.load(file)
            fields = {key: stored[key] for key in Answers.__dataclass_fields__ if key in stored}  # older ones lack some
            answers.append(Answers(name=f"{path.parent.name}/{path.stem}", **fields))
            judged.append(path)
            counts, names = stored["counts"], tuple(stored["names"].tolist())
            mious.append(100 * miou_of(counts))
            pixels.append(100 * float(np.trace(counts) / counts.sum()))
            print(f"{mious[-1]:5.1f} {pixels[-1]:5.1f} {answers[-1].name}", flush=True)
    return answers, mious, pixels, names, judged


def mixes_of(paths: list[Path], address: str, folder: Path) -> list[Path]:
    """Files of every last.pth with mixed batch norms, written where they are not there: FOLDER/RUN/mix-0.25.pth."""
    pictures, written = open_unlabelled(address), []
    places_of = np.linspace(0, len(pictures) - 1, min(_MEASURED, len(pictures))).round().astype(int)

    def batches(spec) -> Iterator:
        frames = [cv2.resize(pictures.frame(int(place)), spec.size_hw[::-1]) for place in places_of]
        for first in range(0, len(frames) - 1, 8):
            yield normalise(torch.from_numpy(np.stack(frames[first : first + 8])), contract_of(spec))

    for path in (path for path in paths if path.name == "last.pth"):
        spec = read_checkpoint(path).spec
        mixes = norm_mixes(from_file("", path).open, lambda own=spec: batches(own), torch.device("cpu"))
        for share, mix in zip(MIXES, mixes):
            file = folder / path.parent.name / f"mix-{share:g}.pth"
            file.parent.mkdir(parents=True, exist_ok=True)
            if not file.is_file():
                write_checkpoint(file, mix.open())
            written.append(file)
    return written


def by_run(answers: list[Answers], mious: list[float], names: tuple, starts: Mapping[str, str]) -> list[dict]:
    """What each rule costs where it chooses among one run's networks and the one that the run started from.

    Args:
        answers: Named RUN/NETWORK; runs without a mix are left out.
        mious: The true ones.
        names: Of the classes.
        starts: From a run to the name of the network that it started from, which the others are compared with.
    """
    at = {found.name: place for place, found in enumerate(answers)}
    true, costs = np.asarray(mious), {name: [] for name in RULES}
    for run in sorted({name.split("/")[0] for name in at if "/mix-" in name}):
        own = [starts.get(run, f"{run}/last"), *(name for name in at if name.split("/")[0] == run)]
        pool = [at[name] for name in dict.fromkeys(own) if name in at]
        scores, warned = scores_of([answers[place] for place in pool], names)
        applied = rule_of([answers[place] for place in pool])
        for name, rule in RULES.items():
            pick = true[pool][np.argmin(chosen_by(rule or applied, scores, warned))]
            costs[name].append((true[pool].max() - pick, true[pool[0]] - pick))
    return [
        {
            "selector": name,
            "runs": len(found),
            "regret": np.mean([regret for regret, _ in found]),
            "largest": max(regret for regret, _ in found),
            "worst_loss": max(0.0, *(loss for _, loss in found)),
        }
        for name, found in costs.items()
        if found
    ]


def starts_of(paths: list[Path]) -> dict[str, str]:
    """From a run to what it started from, RUN/NETWORK, as its config.toml says; its first stage's where it has one."""
    found = {}
    for path in paths:
        config = path.parent / "config.toml"
        told = re.search(r'^init = "(.+)"$', config.read_text(), re.MULTILINE) if config.is_file() else None
        if told:
            found[path.parent.name] = f"{Path(told[1]).parent.name}/{Path(told[1]).stem}"
        elif path.stem.startswith("stage-"):
            found.setdefault(path.parent.name, f"{path.parent.name}/{path.stem}")
    return found


def flicker_scores(paths: list[Path], footage: str, kept: Path) -> dict[str, np.ndarray]:
    """Temporal consistency of each network, float64 (M,) for each form of it; kept as ``measure`` keeps its answers."""
    frames, flows, counts = [], [], []
    for path in paths:
        file = kept / f"{str(path.resolve()).replace('/', '_')}.flicker.npz"
        if not file.exists():
            if not frames:
                pictures = open_unlabelled(footage)
                frames = [pictures.frame(place) for place in range(len(pictures))]
                flows = [flow_between(*pair) for pair in zip(frames, frames[1:])]
            candidate = next(candidates([path]))
            masks = [candidate.mask(frame, _MASK_HW) for frame in frames]
            classes = len(candidate.class_names)
            found = sum(np.stack(changes(*pair, flow, classes)) for *pair, flow in zip(masks, masks[1:], flows))
            np.savez_compressed(file, followed=found[0], changed=found[1])
        stored = np.load(file)
        counts.append((stored["followed"].astype(float), stored["changed"].astype(float)))
    share = np.asarray([changed.sum() / followed.sum() for followed, changed in counts])
    spread = np.asarray([float(entropy(followed / followed.sum())) for followed, _ in counts])
    seen = [followed > 1e-3 * followed.sum() for followed, _ in counts]
    by_class = np.asarray([np.mean(c[own] / f[own]) for (f, c), own in zip(counts, seen)])
    return dict(zip(FLICKER, (-share, -(share + 0.01) / np.maximum(1e-3, spread) ** 3, -by_class)))


def scores_of(answers: list[Answers], names: tuple) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Of each selector float64 (M,), and which candidates look collapsed."""
    judged = judged_of(answers, names)
    once = one_of_each(judged.frames)
    warned = np.asarray([bool(told) for told in judged.warnings])
    return {key: np.asarray([pick(e, once)[0] for e in judged.evidence]) for key, pick in SELECTORS.items()}, warned


def rule_of(answers: list[Answers]) -> tuple[str, ...]:
    """The selectors that ``rank`` counts for these."""
    unsaid = left_out(answers)
    return tuple(key for key in RULE if key not in unsaid)


def chosen_by(rule: tuple[str, ...], scores: dict[str, np.ndarray], warned: np.ndarray) -> np.ndarray:
    """Place of each candidate, 0 for the best."""
    worst = {f"{key} {place}": np.nan_to_num(scores[key], nan=-1e9) for place, key in enumerate(rule)}
    return places({key: values[:, None] for key, values in worst.items()}, warned)[:, 0]


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    one, other = (np.argsort(np.argsort(values, kind="stable"), kind="stable") for values in (a, b))
    return float(np.corrcoef(one, other)[0, 1])


def summary(answers: list[Answers], mious: list[float], names: tuple, more: dict | None = None) -> list[dict]:
    """A row for each rule, with and without the guards; ``more``: further scores of the candidates."""
    more = more or {}
    true = np.asarray(mious)
    scores, warned = scores_of(answers, names)
    scores.update(more)
    rules = {**RULES, **FLICKER_RULES} if more else RULES
    rng = np.random.default_rng(0)
    pools = [np.r_[0, 1 + rng.choice(len(true) - 1, min(_POOL, len(true)) - 1, replace=False)] for _ in range(_POOLS)]
    pooled = [(pool, *scores_of([answers[i] for i in pool], names)) for pool in pools]
    for pool, some, _ in pooled:
        some.update({key: values[pool] for key, values in more.items()})
    rows = []
    for guarded in (True, False):
        for name, rule in rules.items():
            order = chosen_by(rule or rule_of(answers), scores, warned & guarded)
            regrets, losses = [], []
            for pool, some, told in pooled:
                own = rule or rule_of([answers[place] for place in pool])
                pick = true[pool][np.argmin(chosen_by(own, some, told & guarded))]
                regrets.append(true[pool].max() - pick)
                losses.append(true[0] - pick)
            rows.append(
                {
                    "selector": name,
                    "guards": guarded,
                    "spearman": spearman(-order, true),
                    "regret": true.max() - true[np.argmin(order)],
                    "pool_regret": np.mean(regrets),
                    "pool_regret_max": np.max(regrets),
                    "worse_than_first": np.mean(np.asarray(losses) > 0.05),
                    "worst_loss": max(0.0, np.max(losses)),
                }
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pair", nargs="?", default="")
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--first", type=Path, help="source-only; the last stage of the folder source-only by default")
    parser.add_argument("--footage", default="toytown:target?split=val")
    parser.add_argument("--truth", default="toytown:target?split=val")
    parser.add_argument("--max-frames", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--kept", type=Path, default=Path("runs/ranking-kept"), help="what was measured before")
    parser.add_argument("--mixes", help="pictures whose statistics are mixed into the batch norms of each last.pth")
    parser.add_argument("--consecutive", help="every frame of a drive: temporal consistency is measured too")
    parser.add_argument("--rows", type=Path, help="CSV that a row for each candidate is added to")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    paths = checkpoints(asked.folders, last=bool(asked.mixes))
    starts = starts_of(paths)
    paths += mixes_of(paths, asked.mixes, asked.kept / "mixes") if asked.mixes else []
    first = asked.first or next(path for path in reversed(paths) if path.parent.name == "source-only")
    paths = [first, *(path for path in paths if path != first)]
    answers, mious, pixels, names, judged = measure(paths, asked.footage, asked.truth, asked.max_frames, asked.kept)
    scores, _ = scores_of(answers, names)
    warnings = judged_of(answers, names).warnings
    if asked.rows:
        _add_rows(asked, answers, mious, pixels, scores, warnings)
    print(f"\n{len(answers)} candidates, best {max(mious):.2f}, source-only {mious[0]:.2f}\n")
    more = flicker_scores(judged, asked.consecutive, asked.kept) if asked.consecutive else {}
    print(wide(table(COLUMNS, summary(answers, mious, names, more))))
    if asked.mixes:
        print("\n" + wide(table(RUN_COLUMNS, by_run(answers, mious, names, starts))))


def _add_rows(asked, answers, mious, pixels, scores, warnings) -> None:
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    asked.rows.parent.mkdir(parents=True, exist_ok=True)
    new = not asked.rows.exists()
    with asked.rows.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if new:
            fields = ["pair", "frames", "candidate", "commit", "cpu", "miou", "pixel_accuracy", "warnings", *SELECTORS]
            writer.writerow(fields)
        for place, found in enumerate(answers):
            values = [f"{scores[key][place]:.5f}" for key in SELECTORS]
            told = "; ".join(warnings[place])
            figures = [f"{mious[place]:.2f}", f"{pixels[place]:.2f}"]
            writer.writerow([asked.pair, len(found.mean), found.name, commit, _cpu(), *figures, told, *values])


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


if __name__ == "__main__":
    main()
