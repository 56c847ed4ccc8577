"""What a file is by its first bytes, whatever its name says; and in words, where it is not what was expected."""

from __future__ import annotations

import re
from typing import Dict, NamedTuple, Tuple

__all__ = ["PICTURE_KINDS", "Described", "describe", "kind_of"]

# Kinds of pictures, and how they are called. Whether OpenCV reads one depends on how it was built.
PICTURE_KINDS: Dict[str, str] = {
    "png": "PNG",
    "jpeg": "JPEG",
    "webp": "WEBP",
    "bmp": "BMP",
    "tiff": "TIFF",
    "pnm": "PNM",
    "gif": "GIF",
    "avif": "AVIF",
    "heic": "HEIC",
    "jpeg2000": "JPEG 2000",
    "exr": "OpenEXR",
    "hdr": "Radiance HDR",
}

_MAGIC: Tuple[Tuple[bytes, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpeg"),
    (b"BM", "bmp"),
    (b"II*\x00", "tiff"),
    (b"MM\x00*", "tiff"),
    (b"II+\x00", "tiff"),
    (b"MM\x00+", "tiff"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "jpeg2000"),
    (b"\xff\x4f\xff\x51", "jpeg2000"),
    (b"v/1\x01", "exr"),
    (b"#?RADIANCE", "hdr"),
    (b"#?RGBE", "hdr"),
    (b"version https://git-lfs", "git-lfs"),
    (b"PK\x03\x04", "zip"),
    (b"\x1f\x8b", "gzip"),
    (b"%PDF-", "pdf"),
    (b"\x93NUMPY", "numpy"),
    (b"\x89HDF\r\n\x1a\n", "hdf5"),
    (b"\x1aE\xdf\xa3", "video"),
)
_AVIF, _HEIC = (b"avif", b"avis"), (b"heic", b"heix", b"hevc", b"mif1", b"msf1")
_HTML = re.compile(rb"\s*(<!--.*?-->\s*)?<(!doctype\s+html|html|head|body)\b", re.IGNORECASE | re.DOTALL)
_PNM = re.compile(rb"P[1-6]\s")
_TEXT_BYTES = re.compile(rb"[\t\n\r\x20-\x7e\x80-\xff]*\Z")


class Described(NamedTuple):
    """``text`` completes "FILE is ..."; ``hint`` is what to do about it."""

    text: str
    hint: str


_OTHERS: Dict[str, Described] = {
    "git-lfs": Described(
        "a Git LFS pointer, a few lines of text in the place of the file",
        "fetch the files themselves, in that repository: git lfs install && git lfs pull",
    ),
    "html": Described(
        "a web page (HTML), such as a server sends in the place of a file",
        "download it again: open the address in a browser; it may want a login or another link",
    ),
    "xml": Described("an XML file", "is this the right file?"),
    "zip": Described("a ZIP archive (or a file kept in one, as .pth and .npz are)", "is this the right file?"),
    "gzip": Described("a gzip archive", "unpack it first: tar xf FILE, or gunzip FILE"),
    "pdf": Described("a PDF document", "is this the right file?"),
    "numpy": Described("a NumPy array (.npy)", "is this the right file?"),
    "hdf5": Described("an HDF5 file", "is this the right file?"),
    "video": Described("a video", "is this the right file? a video is taken by itself, where footage is: video:FILE"),
    "zeros": Described("nothing but zero bytes", "the disk or the copy failed; copy it again"),
    "text": Described("a text file", "is this the right file?"),
    "empty": Described("empty (0 bytes)", "was it copied or written to its end?"),
}


def kind_of(content: bytes) -> str:
    """The kind of a file, of which the first kilobyte is enough.

    Returns:
        A key of ``PICTURE_KINDS``; ``git-lfs``, ``html``, ``xml``, ``zip``, ``gzip``, ``pdf``, ``numpy``, ``hdf5``,
        ``video``, ``text``, ``zeros`` or ``empty``; ``""`` for anything else.
    """
    head = bytes(content[:1024])
    if not head:
        return "empty"
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    if head[:4] == b"RIFF":
        return "webp" if head[8:12] == b"WEBP" else "video" if head[8:12] == b"AVI " else ""
    if head[4:8] == b"ftyp":
        brand = head[8:12]
        return "avif" if brand in _AVIF else "heic" if brand in _HEIC else "video"
    if _PNM.match(head):
        return "pnm"
    return _text_kind(head)


def _text_kind(head: bytes) -> str:
    if not head.strip(b"\x00"):
        return "zeros"
    text = head[3:] if head.startswith(b"\xef\xbb\xbf") else head
    if _HTML.match(text):
        return "html"
    if text.lstrip().startswith((b"<?xml", b"<svg")):
        return "html" if b"<html" in text.lower() else "xml"
    return "text" if _TEXT_BYTES.match(head) and head[:1].isascii() else ""


def describe(kind: str) -> Described:
    """What to say of a file of another kind than expected; an empty text for ``""``."""
    if kind in PICTURE_KINDS:
        return Described(f"a picture ({PICTURE_KINDS[kind]})", "is this the right file?")
    return _OTHERS.get(kind, Described("", ""))
