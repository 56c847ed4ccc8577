"""Kind, size, orientation and wholeness of picture files, from their bytes."""

from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest
from turned_files import encoded, exif, turned

from rtda_deploy.pictures.content_kind import describe, kind_of
from rtda_deploy.pictures.tiff_tags import exif_orientation, tiff_tags, with_orientation_1
from rtda_deploy.pictures.whole import jpeg_is_whole, look

PICTURE = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)
PROGRESSIVE = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]
RESTARTS = [cv2.IMWRITE_JPEG_RST_INTERVAL, 1]


@pytest.mark.parametrize(
    ("suffix", "settings", "kind", "lossy"),
    [
        (".png", (), "png", False),
        (".jpg", (), "jpeg", True),
        (".jpg", PROGRESSIVE, "jpeg", True),
        (".jpg", RESTARTS, "jpeg", True),
        (".webp", (cv2.IMWRITE_WEBP_QUALITY, 80), "webp", True),
        (".webp", (cv2.IMWRITE_WEBP_QUALITY, 101), "webp", False),
        (".bmp", (), "bmp", False),
        (".tiff", (), "tiff", False),
        (".ppm", (), "pnm", False),
    ],
)
def test_a_whole_file_gives_its_kind_and_size_and_half_of_it_is_not_whole(suffix, settings, kind, lossy):
    content = encoded(suffix, PICTURE, settings)
    facts = look(content)
    assert (facts.kind, facts.size_wh, facts.fault, facts.lossy, facts.bits) == (kind, (40, 24), "", lossy, 8)
    assert look(content + b"\x00" * 999).fault == ""  # cameras pad
    for kept in (0.5, 0.9, 0.99):
        assert look(content[: int(len(content) * kept)]).fault, kept


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tiff", ".bmp", ".ppm"])
def test_every_cut_of_a_file_is_noticed_and_none_is_an_error(suffix):
    content = encoded(suffix, PICTURE)
    for end in range(len(content) - 1):
        facts = look(content[:end])
        assert facts.fault or facts.kind in ("", "empty", "text"), end


def test_a_jpeg_is_whole_up_to_its_own_end_and_not_up_to_that_of_its_thumbnail():
    content = encoded(".jpg", PICTURE)
    small = encoded(".jpg", PICTURE[:8, :8])
    segment = b"Exif\x00\x00" + small
    framed = content[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + content[2:]
    assert jpeg_is_whole(framed)
    assert not jpeg_is_whole(framed[:-2])
    assert not jpeg_is_whole(framed[: len(framed) // 2] + content)  # cut off, and the next frame behind it
    assert jpeg_is_whole(content[:-2] + b"\xff\xff" + content[-2:])  # fill bytes
    assert not jpeg_is_whole(content[:2] + content[-2:])
    assert not jpeg_is_whole(b"no picture")


def test_a_header_that_promises_more_than_the_file_can_hold_is_a_fault():
    content = bytearray(encoded(".jpg", PICTURE))
    start = content.index(b"\xff\xc0")
    content[start + 5 : start + 9] = struct.pack(">HH", 65535, 65535)
    facts = look(bytes(content))
    assert facts.size_wh == (65535, 65535)
    assert "less data" in facts.fault


def test_a_png_whose_pixels_were_changed_is_a_fault():
    content = bytearray(encoded(".png", PICTURE))
    content[60] ^= 4
    assert "checksum" in look(bytes(content)).fault


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tiff", "big.tiff"])
def test_the_orientation_in_exif_is_found(suffix, orientation):
    facts = look(turned(suffix, PICTURE, orientation))
    assert (facts.orientation, facts.fault, facts.size_wh) == (orientation, "", (40, 24))


@pytest.mark.parametrize("order", ["<", ">"])
def test_the_orientation_is_read_in_both_byte_orders_and_nonsense_is_1(order):
    assert exif_orientation(b"Exif\x00\x00" + exif(6, order)) == 6
    assert exif_orientation(exif(9, order)) == 1
    assert exif_orientation(exif(6, order)[:17]) == 1
    assert tiff_tags(with_orientation_1(exif(6, order))) == {274: (1,)}


@pytest.mark.parametrize(
    ("content", "kind", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git-lfs", "Git LFS pointer"),
        (b"\n<!DOCTYPE html>\n<html><body>404</body></html>", "html", "web page"),
        (b"\xef\xbb\xbf<html>", "html", "web page"),
        (b'<?xml version="1.0"?><html xmlns="x">', "html", "web page"),
        (b"<svg>", "xml", "XML"),
        (b"PK\x03\x04....", "zip", "ZIP"),
        (b"\x00\x00\x00\x18ftypmp42", "video", "video"),
        (b"\x00\x00\x00\x18ftypavif", "avif", "AVIF"),
        (b"hello\n", "text", "text"),
        (b"\x00" * 50, "zeros", "zero bytes"),
        (b"", "empty", "empty"),
        (b"\x01\x02\x03", "", ""),
    ],
)
def test_what_is_no_picture_is_called_by_its_name(content, kind, said):
    assert kind_of(content) == kind
    assert said in describe(kind).text
