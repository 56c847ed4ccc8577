"""Grids: recipes times seeds on one pair of domains.

A grid is a TOML file with ``[[rows]]``; its keys are the fields of :class:`Grid` and :class:`GridRow`.
``runner`` trains and scores its runs, ``results`` reduces what they score, ``table`` shows it.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rtda_deploy.errors import ConfigError
from rtda_deploy.files import check_file_name
from rtda_training.data.address import DataAddress
from rtda_training.grids.paper_tables import PublishedRow, published_row
from rtda_training.grids.places import Places
from rtda_training.plan import PlanConfig, load_plan
from rtda_training.plan.loading import refuse_half_typed
from rtda_training.plan.recipes import shipped_folder
from rtda_training.toml_file import known_hint, read_toml, typed_value

__all__ = ["Grid", "GridRow", "GridRun", "grid_names", "is_grid", "load_grid"]

_FOLDER = "ablations/"  # what the name of a grid that comes with the package starts with
_ADDRESSES = ("source", "target", "labelled_target", "val", "check", "test")
_EXPANDED = (*_ADDRESSES, "init", "backbone_weights", "record")
_NO_KEYS = ("typed", "path")  # fields of Grid that no file has
_BASELINE, _ORACLE = "source-only", "target-only"


@dataclasses.dataclass(frozen=True)
class GridRow:
    """One row of the table.

    Attributes:
        label: What the table calls it.
        recipe: A recipe's name, or a path (looked up beside the grid first).
        set: ``key=value`` for this row, after those of the grid; a key of ``Grid`` here goes before the grid's own.
        published: Which printed row stands beside it: ``paper/table/row`` of ``rtda_training.grids.paper_tables``.
    """

    label: str
    recipe: str
    set: tuple[str, ...] = ()
    published: str = ""

    @property
    def slug(self) -> str:
        """The label as a name for files."""
        return re.sub(r"[^a-z0-9.]+", "-", self.label.lower()).strip("-.")

    @property
    def printed(self) -> PublishedRow | None:
        """The printed row."""
        return published_row(self.published) if self.published else None


@dataclasses.dataclass(frozen=True)
class GridRun:
    """One training of a grid.

    Attributes:
        row: Of the table.
        seed: Of its plan.
        folder: Where it is kept, below the grid's.
        plan: What is trained.
        control: Label of the row that is its control; empty: it has none.
        without: Why it has none.
    """

    row: GridRow
    seed: int
    folder: str
    plan: PlanConfig
    control: str = ""
    without: str = ""


@dataclasses.dataclass(frozen=True)
class Grid:
    """A table to measure.

    Attributes:
        name: The grid's name.
        description: One sentence for people.
        source: Address of the labelled domain.
        target: Address of the unlabelled domain.
        labelled_target: Address of a few labelled frames of the target, for every row; empty: none.
        check: Address of a few labelled frames of the target that choose, for every row; empty: none.
        val: Address of the set that ``best.pth`` is chosen on; empty: as each recipe's plan decides.
        test: Address that ``last.pth`` is scored on; empty: the target's test split.
        classes: Class list that all rows learn and are scored in; empty: the source's own.
        init: A checkpoint that every row starts from; empty: none.
        backbone_weights: ImageNet file for every row's backbone; empty: random.
        seeds: Every row is trained once with each.
        set: ``key=value`` for every row.
        baseline: Label of the row that gains are counted from; empty: the first of the recipe ``source-only``.
        oracle: Label of the row that shares are taken of; empty: the first of the recipe ``target-only``.
        record: CSV that finished runs are written to, and that those are taken from which stand there already
            (:class:`rtda_training.grids.record.GridRecord`); empty: none.
        control: Whether each row's control is trained too (:func:`rtda_training.plan.control_of`): a gain over
            source-only alone says nothing of the method.
        rows: What is compared.
        typed: ``key=value`` as typed after ``--set``, for every row; they win over all others.
        path: The file.
    """

    name: str
    source: str
    target: str
    rows: tuple[GridRow, ...]
    description: str = ""
    labelled_target: str = ""
    check: str = ""
    val: str = ""
    test: str = ""
    classes: str = ""
    init: str = ""
    backbone_weights: str = ""
    seeds: tuple[int, ...] = (0,)
    set: tuple[str, ...] = ()
    baseline: str = ""
    oracle: str = ""
    record: str = ""
    control: bool = True
    typed: tuple[str, ...] = ()
    path: Path = Path("grid.toml")

    def __post_init__(self) -> None:
        check_file_name(self.name, "a grid's name")
        if not self.rows:
            raise ConfigError("a grid needs rows", hint="write [[rows]] with label and recipe")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds) or min(self.seeds) < 0:
            raise ConfigError(f"seeds must be different numbers from 0 on, got {list(self.seeds)}", hint="seeds = [0]")
        labels = [row.label for row in self.rows]
        slugs = [row.slug for row in self.rows]
        for place, slug in enumerate(slugs):
            if not slug or slug in slugs[:place]:
                raise ConfigError(f"rows need labels of their own, got {labels[place]!r}", hint="letters and digits")
        for key in ("baseline", "oracle"):
            label = getattr(self, key)
            if label and label not in labels:
                raise _unknown(f"{key} {label!r} is no row", label, labels)
        for row in self.rows:
            if row.published:
                published_row(row.published)
        for text in (*self.set, *self.typed, *(text for row in self.rows for text in row.set)):
            if text.partition("=")[0] == "seed":
                raise ConfigError(f"{text} would be the seed of every run", hint="seeds = [3], or --set 'seeds=[3]'")

    @property
    def baseline_row(self) -> GridRow | None:
        """The row that gains are counted from."""
        return self._role(self.baseline, _BASELINE)

    @property
    def oracle_row(self) -> GridRow | None:
        """The row that shares are taken of."""
        return self._role(self.oracle, _ORACLE)

    def _role(self, label: str, recipe: str) -> GridRow | None:
        return next((row for row in self.rows if (row.label == label if label else row.recipe == recipe)), None)

    @property
    def test_address(self) -> str:
        """What ``last.pth`` is scored on; opened with ``split="test"`` where it names no split."""
        if self.test:
            return self.test
        address = DataAddress.parse(self.target)
        if "list" in address.options:
            raise ConfigError(
                f"{self.target} is a list of training pictures, and the grid names no test set",
                hint="add test = \"…\" to the grid, or --set test='KIND:PATH?list=FILE'",
            )
        return str(dataclasses.replace(address, split=None))

    def runs(self) -> list[GridRun]:
        """Every training of the grid, seed by seed, so that a table with one seed is there first.

        With ``control``, those that :func:`rtda_training.grids.controls.with_controls` adds are among them.

        Raises:
            ConfigError: If a row's recipe or settings are wrong; it names the row.
        """
        from rtda_training.grids.controls import with_controls

        own = [self._run(row, seed) for seed in self.seeds for row in self.rows]
        return with_controls(own) if self.control else own

    def _run(self, row: GridRow, seed: int) -> GridRun:
        own = {text.partition("=")[0] for text in row.set}
        shared = ("source", "target", "labelled_target", "val", "check", "classes", "init", "backbone_weights")
        fields = {key: getattr(self, key) for key in shared if key not in own}
        if row.recipe == _ORACLE:  # it learns from the target's labels, and nothing is to be chosen
            fields.pop("check", None)
        recipe = row.recipe
        if recipe.endswith(".toml") and (self.path.parent / recipe).is_file():
            recipe = str(self.path.parent / recipe)
        try:
            plan = load_plan(recipe, [*self.set, *row.set, *self.typed, f"seed={seed}"], **fields)
        except ConfigError as err:
            raise ConfigError(f"row {row.label!r}: {err.message}", why=err.why, hint=err.hint) from err
        return GridRun(row, seed, f"{row.slug}-seed{seed}", plan)


def is_grid(recipe: str) -> bool:
    """Whether a name or path typed after ``train`` means a grid, not a recipe."""
    path = _find(recipe)
    if path is None or not path.is_file():
        return recipe.startswith(_FOLDER)
    return "rows" in read_toml(path, "recipe", hint="compare it with one in training/ablations")


def grid_names() -> list[str]:
    """Names of the grids that come with the package."""
    return sorted(_FOLDER + path.stem for path in shipped_folder("ablations").glob("*.toml"))


def load_grid(recipe: str, overrides: Sequence[str] = (), **fields: str) -> Grid:
    """Read a grid and change it.

    Args:
        recipe: Path of a TOML file, or the name of one that comes with the package: ``ablations/toytown``.
        overrides: ``key=value`` texts as typed after ``--set``: a key of the grid, else a setting of every row.
        fields: Fields of ``Grid`` that were typed as flags; empty ones are left alone. A typed target leaves the grid's
            own test set behind, a typed source its val set.

    Raises:
        ConfigError: On an unknown grid, key or value, naming the nearest known one.
        FileAccessError: If the file cannot be read.
    """
    path = _find(recipe)
    if path is None:
        raise _unknown(f"grid {recipe!r} is unknown", recipe, grid_names())
    table = read_toml(path, "recipe", hint="compare it with one in training/ablations")
    table.setdefault("name", path.stem)
    typed = {key: value for key, value in fields.items() if value}
    refuse_half_typed(typed, table, "grid")
    for own, domain in (("test", "target"), ("val", "source")):
        if domain in typed:
            table.pop(own, None)
    table.update(typed)
    known = {field.name for field in dataclasses.fields(Grid)} - {"rows", "set", *_NO_KEYS}
    settings = []
    for text in overrides:
        key, equals, value = text.partition("=")
        if equals and key in known:
            table[key] = typed_value(value, key)
        else:
            settings.append(text)
    return _grid(table, path, tuple(settings))


def _grid(table: Mapping[str, Any], path: Path, typed: tuple[str, ...]) -> Grid:
    entries = table.get("rows", [])
    if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
        raise ConfigError("rows must be a list of tables", hint="write [[rows]]")
    rows = tuple(GridRow(**_checked(GridRow, entry, "rows.")) for entry in entries)
    values = _checked(Grid, {key: value for key, value in table.items() if key != "rows"}, "")
    for key in _EXPANDED:
        if values.get(key):
            values[key] = _expanded(key, values[key], Places(path.parent))
    return Grid(**values, rows=rows, typed=typed, path=path)


def _checked(kind: type, values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The values as the class wants them: texts, yes or no, or lists of texts or of numbers."""
    fields = {field.name: field for field in dataclasses.fields(kind) if field.name not in _NO_KEYS}
    for key in values:
        if key not in fields:
            raise _unknown(f"setting {prefix}{key} is unknown", key, list(fields))
    made: dict[str, Any] = {}
    for key, value in values.items():
        if fields[key].type == "str":
            if not isinstance(value, str):
                raise ConfigError(f"{prefix}{key} must be of type str, got {value!r}", hint="a text in quotes")
            made[key] = value
            continue
        if fields[key].type == "bool":
            if not isinstance(value, bool):
                raise ConfigError(f"{prefix}{key} must be true or false, got {value!r}", hint=f"{key} = true")
            made[key] = value
            continue
        item = int if "int" in str(fields[key].type) else str
        if not isinstance(value, list) or any(type(entry) is not item for entry in value):
            example = "[0, 1, 2]" if item is int else '["steps=300"]'
            raise ConfigError(f"{prefix}{key} must be a list, got {value!r}", hint=f"such as {key} = {example}")
        made[key] = tuple(value)
    needed = [name for name, field in fields.items() if field.default is dataclasses.MISSING and name != "rows"]
    for key in needed:
        if not made.get(key):
            raise ConfigError(f"{prefix}{key} is missing", hint=f'write {key} = "…"')
    return made


def _expanded(key: str, text: str, places: Places) -> str:
    """Names of folders in an address become the folders.

    Raises:
        ConfigError: If one is not set.
    """
    missing = places.unknown(text)
    if missing:
        raise ConfigError(
            f"{key} = {text}: {missing} is not set in the environment",
            hint=f"export {missing}=DIR, or type another address: --set {key}=…",
        )
    return places.known(text)


def _find(recipe: str) -> Path | None:
    if recipe.endswith(".toml"):
        return Path(recipe)
    found = shipped_folder("ablations") / f"{recipe.removeprefix(_FOLDER)}.toml"
    return found if recipe.startswith(_FOLDER) and found.is_file() else None


def _unknown(message: str, text: str, known: Sequence[str]) -> ConfigError:
    return ConfigError(message, hint=known_hint(text, known))
