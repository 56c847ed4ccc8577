"""ModelSpec: it survives the journey through JSON, and says which field is wrong."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any, Dict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtda_deploy.errors import FileAccessError, SpecError
from rtda_deploy.spec import SPEC_VERSION, ModelSpec


def good(**changes: Any) -> ModelSpec:
    fields: Dict[str, Any] = {
        "size_hw": (64, 96),
        "class_names": ("road", "sky"),
        "palette": ((128, 64, 128), (70, 130, 180)),
        **changes,
    }
    return ModelSpec(**fields)


def as_json(**changes: Any) -> Dict[str, Any]:
    return {**good().to_dict(), **changes}


def json_values(depth: int = 2) -> st.SearchStrategy[Any]:
    leaves = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(max_size=8)
    leaves = leaves.filter(lambda value: not (isinstance(value, float) and math.isinf(value)))
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=6,
    )


@st.composite
def specs(draw: st.DrawFn) -> ModelSpec:
    stride = draw(st.sampled_from([1, 4, 8, 16]))
    names = draw(st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=24, unique=True))
    three = st.tuples(*[st.floats(-300, 300)] * 3)
    positive = st.floats(min_value=1e-6, max_value=1e3)
    byte = st.integers(0, 255)
    return ModelSpec(
        size_hw=(draw(st.integers(1, 100)) * stride, draw(st.integers(1, 100)) * stride),
        class_names=tuple(names),
        palette=tuple(draw(st.tuples(byte, byte, byte)) for _ in names),
        channel_order=draw(st.sampled_from(["rgb", "bgr"])),
        pixel_scale=draw(positive),
        mean=draw(three),
        std=draw(st.tuples(positive, positive, positive)),
        interpolation=draw(st.sampled_from(["linear", "area", "cubic", "nearest"])),
        ignore_index=draw(st.integers(len(names), 255)),
        output=draw(st.sampled_from(["logits", "mask"])),
        output_stride=stride,
        **draw(st.sampled_from([{"resize": "stretch"}, {"resize": "letterbox"}, {"input": "uint8", "layout": "nhwc"}])),
        provenance=draw(st.dictionaries(st.text(max_size=6), json_values(), max_size=4)),
    )


@given(specs())
def test_any_spec_comes_back_from_json_as_it_was(spec: ModelSpec) -> None:
    assert ModelSpec.from_json(spec.to_json()) == spec
    assert ModelSpec.from_json(spec.to_json().encode()) == spec
    assert ModelSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


@given(st.dictionaries(st.text(max_size=12), json_values(), max_size=4) | json_values())
def test_any_other_json_is_refused_as_a_spec_error(values: Any) -> None:
    with pytest.raises(SpecError):
        ModelSpec.from_json(json.dumps(values))


@given(st.sampled_from(sorted(as_json())), json_values())
def test_any_value_in_any_field_is_taken_or_refused_as_a_spec_error(field: str, value: Any) -> None:
    try:
        spec = ModelSpec.from_dict(as_json(**{field: value}))
    except SpecError:
        return
    assert ModelSpec.from_json(spec.to_json()) == spec


def test_a_file_carries_it_too(tmp_path: Path) -> None:
    spec = good(provenance={"recipe": "größer", "metrics": {"miou": 0.5}})
    assert ModelSpec.load(spec.save(tmp_path / "deep" / "spec.json")) == spec


def test_the_version_comes_first_and_is_this_one() -> None:
    values = good().to_dict()
    assert next(iter(values)) == next(iter(json.loads(good().to_json()))) == "version"
    assert values["version"] == SPEC_VERSION == 1


def test_json_holds_every_field_and_nothing_else() -> None:
    fields = {"version", *(field.name for field in dataclasses.fields(ModelSpec))}
    assert set(good(input="uint8", layout="nhwc").to_dict()) == fields


def test_a_usual_file_says_nothing_that_a_version_before_this_one_would_refuse() -> None:
    assert not {"input", "layout"} & set(good().to_dict())
    assert set(good(input="uint8").to_dict()) >= {"input"}, "that one cannot run it, and says so"


@pytest.mark.parametrize(
    ("changes", "shape", "dtype"),
    [
        ({}, (1, 3, 64, 96), "float32"),
        ({"input": "uint8"}, (1, 3, 64, 96), "uint8"),
        ({"input": "uint8", "layout": "nhwc"}, (1, 64, 96, 3), "uint8"),
        ({"input": "pixels", "layout": "nhwc"}, (1, 64, 96, 3), "float32"),
    ],
)
def test_it_says_what_the_network_takes(changes: Any, shape: Any, dtype: str) -> None:
    spec = good(**changes)
    assert (spec.input_shape, spec.input_dtype) == (shape, dtype)


@pytest.mark.parametrize("kind", ["uint8", "pixels"])
def test_pixels_and_a_letterbox_do_not_go_together_for_its_bars_are_no_pixels(kind: str) -> None:
    with pytest.raises(SpecError, match=f"letterboxed network cannot have the input {kind}") as caught:
        good(input=kind, resize="letterbox", mean=(0.5, 0.5, 0.5))
    assert "127.5" in caught.value.why and "--input float32" in caught.value.hint


def test_normalised_planes_have_one_layout() -> None:
    with pytest.raises(SpecError, match="float32 input is laid out nchw"):
        good(layout="nhwc")


def test_an_unknown_field_is_refused_by_name() -> None:
    with pytest.raises(SpecError, match="unknown fields: colour, sise_hw") as caught:
        ModelSpec.from_dict(as_json(sise_hw=[1, 2], colour="red"), where="model.onnx")
    assert "model.onnx" in caught.value.message
    assert "size_hw" in caught.value.hint


def test_a_newer_version_is_refused_with_the_fix() -> None:
    with pytest.raises(SpecError, match=r"x\.onnx is version 2, this rtda-deploy reads up to 1") as caught:
        ModelSpec.from_dict(as_json(version=2, field_of_the_future=1), where="x.onnx")
    assert "pip install --upgrade rtda-deploy" in caught.value.hint


@pytest.mark.parametrize("version", [0, -1, True, "1", 1.5, [1]])
def test_a_version_that_is_no_whole_number_is_refused(version: Any) -> None:
    with pytest.raises(SpecError, match="version"):
        ModelSpec.from_dict(as_json(version=version))


def test_a_spec_without_version_is_refused() -> None:
    values = good().to_dict()
    del values["version"]
    with pytest.raises(SpecError, match="no version"):
        ModelSpec.from_dict(values)


@pytest.mark.parametrize("field", ["size_hw", "class_names", "palette"])
def test_a_missing_field_is_named(field: str) -> None:
    values = good().to_dict()
    del values[field]
    with pytest.raises(SpecError, match=f"lacks the fields: {field}"):
        ModelSpec.from_dict(values)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("size_hw", (64,)),
        ("size_hw", (64, 96.5)),
        ("size_hw", "64x96"),
        ("size_hw", (0, 96)),
        ("size_hw", (-8, 96)),
        ("size_hw", (60, 96)),
        ("size_hw", None),
        ("class_names", ()),
        ("class_names", "road"),
        ("class_names", ("road", 3)),
        ("class_names", ("road", "")),
        ("class_names", ("road", "road")),
        ("palette", ((1, 2, 3),)),
        ("palette", ((1, 2), (3, 4))),
        ("palette", ((1, 2, 3), (4, 5, 256))),
        ("palette", ((1, 2, 3), (4, 5, -1))),
        ("palette", ((1, 2, 3), "red")),
        ("palette", None),
        ("channel_order", "RGB"),
        ("channel_order", ["rgb"]),
        ("pixel_scale", 0),
        ("pixel_scale", math.nan),
        ("pixel_scale", "1/255"),
        ("pixel_scale", True),
        ("mean", (1, 2)),
        ("mean", (1, 2, math.inf)),
        ("mean", 0.5),
        ("std", (1, 1, 0)),
        ("std", (1, 1, -1)),
        ("resize", "crop"),
        ("interpolation", "bilinear"),
        ("ignore_index", 1),
        ("ignore_index", 256),
        ("ignore_index", -1),
        ("ignore_index", 2.5),
        ("output", "softmax"),
        ("output_stride", 0),
        ("output_stride", 7),
        ("provenance", [1]),
        ("provenance", None),
    ],
)
def test_a_bad_value_names_its_field(field: str, value: Any) -> None:
    with pytest.raises(SpecError) as caught:
        good(**{field: value})
    word = {"size_hw": "size"}.get(field, field)
    assert word in caught.value.message


def test_255_classes_fit_a_mask_and_256_do_not() -> None:
    names = tuple(f"class {index}" for index in range(256))
    palette = tuple((index, index, index) for index in range(256))
    assert good(class_names=names[:255], palette=palette[:255]).num_classes == 255
    with pytest.raises(SpecError, match="256 classes"):
        good(class_names=names, palette=palette)


def test_lists_and_whole_floats_become_what_the_type_says() -> None:
    spec = good(size_hw=[64.0, 96], mean=[0, 0, 0], palette=[[1, 2, 3], [4.0, 5, 6]])
    assert spec.size_hw == (64, 96) and all(isinstance(side, int) for side in spec.size_hw)
    assert spec.mean == (0.0, 0.0, 0.0) and all(isinstance(part, float) for part in spec.mean)
    assert spec.palette == ((1, 2, 3), (4, 5, 6))


def test_it_cannot_be_changed_but_replaced() -> None:
    spec = good()
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.size_hw = (8, 8)  # type: ignore[misc]
    assert spec.replace(size_hw=(128, 64)).size_hw == (128, 64)
    with pytest.raises(SpecError):
        spec.replace(size_hw=(1, 2))


def test_the_output_is_a_coarse_grid_of_logits_or_the_mask() -> None:
    assert good().output_hw == (8, 12)
    assert good(output="mask").output_hw == (64, 96)


def test_rtdas_own_contract_is_one_value_of_it() -> None:
    rtda = good(channel_order="bgr", pixel_scale=1, mean=(104.007, 116.669, 122.679), std=(1, 1, 1))
    assert ModelSpec.from_json(rtda.to_json()) == rtda


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", b"\xff\xfe", "{}", '"spec"'])
def test_text_that_is_no_spec_is_refused_with_its_place(text: Any) -> None:
    with pytest.raises(SpecError, match=r"here\.json"):
        ModelSpec.from_json(text, where="here.json")


def test_nan_in_json_is_refused() -> None:
    with pytest.raises(SpecError, match="mean"):
        ModelSpec.from_json(json.dumps(as_json(mean=[math.nan, 0, 0])))


def test_a_missing_spec_file_is_a_file_error(tmp_path: Path) -> None:
    with pytest.raises(FileAccessError, match=r"spec\.json"):
        ModelSpec.load(tmp_path / "spec.json")
