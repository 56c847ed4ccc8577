"""What every engine must do. A new engine inherits :class:`EngineContract` and says how to open the tiny network."""

from __future__ import annotations

import threading
from typing import Any, Callable, List

import numpy as np
import pytest
from patience import PATIENCE_S
from runtime.models import NAMES, PALETTE, tiny_logits, tiny_spec

from rtda_deploy.errors import EngineError
from rtda_deploy.spec import ModelSpec
from rtda_runtime.engines import Engine, providers

OpenEngine = Callable[..., Engine]


class EngineContract:
    """Subclasses define the fixture ``open_tiny``, a function that opens the network of ``models.py``.

    Its arguments, all optional: ``seed`` of the weights; ``spec``, which may say ``output="mask"``; ``confidence``, the
    type of a second output beside the mask; ``claims``, a spec to open it with in the place of its own.
    """

    logit_tolerance = 1e-4  # of the logits' range: float32 sums in another order

    def test_shapes_and_dtypes_are_those_of_the_spec(self, open_tiny: OpenEngine, spec: ModelSpec) -> None:
        with open_tiny() as engine:
            assert engine.spec == spec
            assert engine.input_shape == engine.input_buffer.shape == (1, 3, 64, 96)
            assert engine.input_buffer.dtype == np.float32 and engine.input_buffer.flags.c_contiguous
            logits = engine.infer()
            assert logits.dtype == np.float32
            assert logits.shape == engine.output_shape == (5, 8, 12)

    def test_it_computes_what_numpy_computes(self, open_tiny: OpenEngine) -> None:
        with open_tiny() as engine:
            for seed in range(3):
                self.check_one_inference(engine, seed)

    @pytest.mark.parametrize("kind", ["", "float32", "uint8"])
    def test_a_mask_network_gives_classes_and_where_it_can_how_sure_it_is(
        self, open_tiny: OpenEngine, kind: str
    ) -> None:
        with open_tiny(spec=tiny_spec(output="mask"), confidence=kind) as engine:
            _fill(engine, 0)
            mask, sure, logits = engine.infer(), engine.confidence, tiny_logits(engine.input_buffer)
            assert mask.dtype == np.uint8 and mask.shape == engine.output_shape == (64, 96)
            np.testing.assert_array_equal(mask[::8, ::8], logits.argmax(axis=0))
            assert (sure is None) is (kind == "")
            if sure is not None:
                assert sure.shape == (64, 96) and sure.dtype == kind
                expected = logits.max(axis=0) if kind == "float32" else logits.max(axis=0).clip(0, 255).astype(np.uint8)
                np.testing.assert_allclose(sure[::8, ::8], expected, atol=1e-4 if kind == "float32" else 1)

    @pytest.mark.parametrize("layout", ["nhwc", "nchw"])
    @pytest.mark.parametrize("kind", ["uint8", "pixels"])
    def test_a_network_that_takes_pixels_gets_them_as_they_are(
        self, open_tiny: OpenEngine, kind: str, layout: str
    ) -> None:
        with open_tiny(spec=tiny_spec(input=kind, layout=layout)) as engine:
            buffer = engine.input_buffer
            assert buffer.dtype == engine.spec.input_dtype and buffer.shape == engine.spec.input_shape
            buffer[:] = np.random.default_rng(4).integers(0, 256, buffer.shape)
            planes = buffer.transpose(0, 3, 1, 2) if layout == "nhwc" else buffer
            self.check_close(engine.infer(), tiny_logits(planes.astype(np.float32)))

    def test_a_float_network_that_says_it_takes_bytes_is_refused(self, open_tiny: OpenEngine) -> None:
        with pytest.raises(EngineError, match=r"input .* is float32, expected uint8"):
            open_tiny(claims=tiny_spec(input="uint8"))

    @pytest.mark.parametrize(
        ("claims", "said"),
        [
            ({"size_hw": (64, 64)}, "input .* is 1x3x64x96, its spec says 1x3x64x64"),
            ({"class_names": NAMES[:4], "palette": PALETTE[:4]}, "output .* is 1x5x8x12, its spec says 1x4x8x12"),
            ({"output": "mask"}, "output .* is 1x5x8x12, its spec says 1x64x96"),
        ],
    )
    def test_a_network_that_does_not_fit_its_spec_is_refused(
        self, open_tiny: OpenEngine, claims: Any, said: str
    ) -> None:
        with pytest.raises(EngineError, match=said) as caught:
            open_tiny(claims=tiny_spec(**claims))
        assert "--spec" in caught.value.hint

    def test_buffers_keep_their_address(self, open_tiny: OpenEngine) -> None:
        with open_tiny() as engine:
            before = engine.input_buffer.ctypes.data, engine.infer().ctypes.data
            for _ in range(3):
                engine.input_buffer[:] = 1.0
                engine.infer()
            assert (engine.input_buffer.ctypes.data, engine.infer().ctypes.data) == before

    def test_the_answer_is_reused_by_the_next_call(self, open_tiny: OpenEngine) -> None:
        with open_tiny() as engine:
            engine.input_buffer[:] = 1.0
            kept = engine.infer()
            copy = kept.copy()
            engine.input_buffer[:] = -2.0
            engine.infer()
            np.testing.assert_allclose(kept, -2.0 * copy, rtol=1e-3, atol=1e-3)

    def test_the_input_is_not_changed_by_inference(self, open_tiny: OpenEngine) -> None:
        with open_tiny() as engine:
            _fill(engine, 5)
            before = engine.input_buffer.copy()
            engine.infer()
            np.testing.assert_array_equal(engine.input_buffer, before)

    def test_a_picture_of_another_size_cannot_be_written(self, open_tiny: OpenEngine) -> None:
        with open_tiny() as engine, pytest.raises(ValueError, match="broadcast"):
            engine.input_buffer[:] = np.zeros((1, 3, 64, 64), np.float32)

    def test_another_thread_may_use_it(self, open_tiny: OpenEngine) -> None:
        with open_tiny() as engine:
            failures: List[BaseException] = []

            def use() -> None:
                try:
                    self.check_one_inference(engine, 7)
                except BaseException as err:
                    failures.append(err)

            thread = threading.Thread(target=use)
            thread.start()
            thread.join(PATIENCE_S)
            assert not thread.is_alive() and not failures, failures

    def test_two_engines_in_one_process_do_not_disturb_each_other(self, open_tiny: OpenEngine) -> None:
        with open_tiny(seed=0) as first, open_tiny(seed=1) as second:
            _fill(first, 1)
            _fill(second, 2)
            one, two = first.infer(), second.infer()
            self.check_close(one, tiny_logits(first.input_buffer, seed=0))
            self.check_close(two, tiny_logits(second.input_buffer, seed=1))
            second.close()
            self.check_one_inference(first, 3)

    def test_it_says_what_it_runs_on(self, open_tiny: OpenEngine) -> None:
        with open_tiny() as engine:
            assert engine.provider in providers()
            assert engine.description

    def test_close_may_be_called_again(self, open_tiny: OpenEngine) -> None:
        engine = open_tiny()
        engine.close()
        engine.close()
        assert engine.closed

    @pytest.mark.parametrize("use", [lambda engine: engine.infer(), lambda engine: engine.input_buffer])
    def test_use_after_close_is_an_error(self, open_tiny: OpenEngine, use: Callable[[Engine], Any]) -> None:
        with open_tiny() as engine:
            engine.infer()
        with pytest.raises(EngineError, match="is closed"):
            use(engine)

    def test_arrays_taken_before_close_can_still_be_read(self, open_tiny: OpenEngine) -> None:
        with open_tiny() as engine:
            picture, logits = engine.input_buffer, engine.infer()
        assert np.isfinite(picture).all() and np.isfinite(logits).all()

    def check_one_inference(self, engine: Engine, seed: int) -> None:
        _fill(engine, seed)
        self.check_close(engine.infer(), tiny_logits(engine.input_buffer))

    def check_close(self, logits: np.ndarray, expected: np.ndarray) -> None:
        np.testing.assert_allclose(logits, expected, rtol=0, atol=self.logit_tolerance * np.ptp(expected))


def _fill(engine: Engine, seed: int) -> None:
    engine.input_buffer[:] = np.random.default_rng(seed).standard_normal(engine.input_shape).astype(np.float32)
