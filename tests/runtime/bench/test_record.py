"""The record of a benchmark as JSON and back, and what is no record."""

from __future__ import annotations

import json
import re
import tarfile
from pathlib import Path
from typing import Any, Dict, Optional

import pytest
from runtime.bench.records import quiet_record, quiet_values, timed_values

from rtda_deploy.errors import DataError, RtdaError
from rtda_runtime.bench.advice import advice
from rtda_runtime.bench.record import BenchRecord, load_record

EARLIER = Path(__file__).parents[2] / "earlier" / "version-before-rooms.tar.xz"


@pytest.mark.parametrize("name", ["A", "B", "rate", "source"])
def test_what_the_version_before_wrote_is_read_and_written_alike(name: str) -> None:
    """``bench --json`` of a network, of frames due at a rate, and of a pipeline; keys in their order."""
    with tarfile.open(EARLIER) as archive:
        member = archive.extractfile(f"bench-{name}.json")
        assert member is not None
        text = member.read().decode()
    record = BenchRecord.from_dict(json.loads(text))
    assert json.dumps(record.to_dict(samples=False)) == json.dumps(json.loads(text))
    assert advice(record) == list(record.advice)


def test_a_record_older_than_a_field_is_read() -> None:
    """Fields that came later are None, or what every record was before."""
    values = quiet_values()
    for part, names in (("settings", ["in_flight"]), ("environment", ["cores_usable"])):
        for name in names:
            del values[part][name]
    del values["mask_maker"], values["samples"]
    record = BenchRecord.from_dict(values)
    assert (record.settings.in_flight, record.environment.cores_usable, record.mask_maker) == (1, None, None)


def test_a_rate_that_was_kept_is_said_in_numbers() -> None:
    told = quiet_record(settings={"rate_hz": 30.0}, throughput=29.9, offered=300, missed=3, late=5)
    assert told.rate_text() == "at 30 Hz: 29.9 frames/s achieved, missed 3 of 300 frames (1 %), 5 late"


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (None, "No such file"),
        ("", "is empty"),
        ("{", "is no JSON"),
        ("[]", "is no result of bench"),
        ('{"format": "rtda.demo/1"}', "is no result of bench: format 'rtda.demo/1'"),
        (
            '{"format": "rtda.bench/1"}',
            "is not what bench has written it has no .*conditions, created, environment, frame_hw",
        ),
    ],
)
def test_what_is_no_result_is_refused(tmp_path: Path, content: Optional[str], error: str) -> None:
    if content is not None:
        (tmp_path / "x.json").write_text(content)
    with pytest.raises(RtdaError) as caught:
        load_record(tmp_path / "x.json")
    assert re.search(error, f"{caught.value.message} {caught.value.why}") and caught.value.hint


@pytest.mark.parametrize(
    "part",
    [
        {"stages": {}},
        {"stages": {"total": {"p50": "fast", "p95": 1.0}}},
        {"stages": {"total": {"p50": -1.0, "p95": 1.0}}},
        {"samples": {"total": ["x"], "at_s": [0.1]}},
        {"environment": None},
        {"settings": {}},
        {"frame_hw": [64]},
        {"throughput": float("nan")},
        {"throughput": 10**400},
    ],
    ids=repr,
)
def test_a_value_that_is_none_is_one_error_naming_its_file(tmp_path: Path, part: Dict[str, Any]) -> None:
    (tmp_path / "x.json").write_text(json.dumps({**timed_values(), **part}))
    with pytest.raises(DataError, match=r"x\.json") as caught:
        load_record(tmp_path / "x.json")
    assert "rtda-deploy bench" in caught.value.hint
