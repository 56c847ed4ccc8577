"""What every reader makes of a picture file: refused, turned, cut to 8 bits."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from turned_files import encoded, turned

from rtda_deploy.errors import DataError
from rtda_deploy.pictures.decode import checked_picture, decode_bgr, decode_stored

BLACK, RED, GREEN, BLUE = (0, 0, 0), (0, 0, 255), (0, 255, 0), (255, 0, 0)
CORNERS = [[BLACK, RED], [GREEN, BLUE]]
# Where the stored corners are to be seen, by the sentences of EXIF 2.3 ("the 0th row is at the visual ..., the 0th
# column at the visual ...").
SHOWN = {
    1: [[BLACK, RED], [GREEN, BLUE]],
    2: [[RED, BLACK], [BLUE, GREEN]],
    3: [[BLUE, GREEN], [RED, BLACK]],
    4: [[GREEN, BLUE], [BLACK, RED]],
    5: [[BLACK, GREEN], [RED, BLUE]],
    6: [[GREEN, BLACK], [BLUE, RED]],
    7: [[BLUE, RED], [GREEN, BLACK]],
    8: [[RED, BLUE], [BLACK, GREEN]],
}


@pytest.mark.parametrize("orientation", SHOWN)
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tiff", "big.tiff"])
def test_a_picture_is_shown_as_its_exif_says_whatever_its_kind(suffix, orientation):
    stored = np.repeat(np.repeat(np.array(CORNERS, np.uint8), 8, axis=0), 16, axis=1)  # 16 high, 32 wide
    content = turned(suffix, stored, orientation)
    if suffix == "big.tiff" and cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED) is None:
        pytest.skip("this OpenCV reads no BigTIFF")
    shown = decode_bgr(cv2, content, "a", DataError)
    height, width = shown.shape[:2]
    assert (height, width) == ((32, 16) if orientation > 4 else (16, 32))
    seen = shown[height // 4 :: height // 2, width // 4 :: width // 2]
    assert np.abs(seen.astype(int) - np.array(SHOWN[orientation])).max() < 30  # JPEG and WEBP are lossy


@pytest.mark.parametrize("suffix", [".png", ".tiff", ".ppm"])
def test_12_bits_in_16_are_refused_with_a_way_out_and_16_bits_lose_their_lower_half(suffix):
    deep = np.arange(16 * 32 * 3, dtype=np.uint16).reshape(16, 32, 3) * 42
    assert deep.max() > 4095
    assert (decode_bgr(cv2, encoded(suffix, deep), "a", DataError) == deep >> 8).all()
    with pytest.raises(DataError, match=r"largest value is 4095: 12 bits") as caught:
        decode_bgr(cv2, encoded(suffix, np.minimum(deep, 4095)), "a", DataError, path=Path("my pictures/a.png"))
    assert "multiply 16" in caught.value.hint and "'my pictures'/*.png" in caught.value.hint
    assert not decode_bgr(cv2, encoded(suffix, deep * 0), "a", DataError).any()


def test_grey_is_repeated_alpha_is_dropped_and_stored_values_stay():
    grey = np.full((4, 6), 7, np.uint8)
    assert decode_bgr(cv2, encoded(".png", grey), "a", DataError).tolist() == np.dstack([grey] * 3).tolist()
    alpha = np.dstack([grey, grey, grey, grey])
    assert decode_bgr(cv2, encoded(".png", alpha), "a", DataError).shape == (4, 6, 3)
    ids = np.full((4, 6), 700, np.uint16)
    assert (decode_stored(cv2, encoded(".png", ids), "a", DataError) == ids).all()


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tiff", ".bmp"])
def test_half_a_picture_is_refused(suffix):
    content = encoded(suffix, np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    with pytest.raises(DataError, match=r"a is a damaged .* or cut off"):
        decode_bgr(cv2, content[: len(content) // 2], "a", DataError)


def sized_png(width, height):
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in parts
    )


def sized_jpeg(width, height):
    content = bytearray(encoded(".jpg", np.zeros((8, 8, 3), np.uint8)))
    start = content.index(b"\xff\xc0")
    content[start + 5 : start + 9] = struct.pack(">HH", height, width)
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (sized_png(60000, 60000), "PNG of 60000x60000"),
        (sized_png(2_000_000, 1), "PNG of 2000000x1"),
        (sized_png(0, 5), "PNG of 0x5"),
        (sized_png(20000, 20000), "less data"),
        (sized_jpeg(65535, 65535), "JPEG of 65535x65535"),
        (sized_jpeg(20000, 20000), "less data"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html></html>", "web page"),
        (b"", "empty"),
        (b"\x01\x02", "no picture"),
        (b"\xff\xd8\xff\xc0\x00\x02\xff\xda\x00\x02\xff\xd9", "JPEG"),
    ],
)
def test_what_cannot_be_decoded_is_one_error_with_a_fix(content, said):
    with pytest.raises(DataError, match=said) as caught:
        decode_bgr(cv2, content, "a", DataError)
    assert caught.value.hint and caught.value.message.startswith("a is ")


def test_a_picture_is_looked_at_without_decoding_it():
    assert checked_picture(encoded(".png", np.zeros((3, 5, 3), np.uint8)), "a", DataError).size_wh == (5, 3)


class _Decoder:
    """OpenCV with another answer."""

    error, IMREAD_UNCHANGED = cv2.error, cv2.IMREAD_UNCHANGED

    def __init__(self, answer):
        self._answer = answer

    def imdecode(self, content, flags):
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (cv2.error("it fails"), "a cannot be decoded"),
        (MemoryError(), "a cannot be decoded"),
        (None, "a is a PNG that OpenCV cannot decode"),
        (np.zeros((4, 5), np.uint8), "a is a PNG of 5x3, as its header says, and has 5x4 pixels"),
    ],
)
def test_whatever_a_decoder_does_is_one_error(answer, said):
    with pytest.raises(DataError, match=said) as caught:
        decode_stored(_Decoder(answer), encoded(".png", np.zeros((3, 5), np.uint8)), "a", DataError)
    assert caught.value.hint
