"""Files are whole or absent, whatever happens while they are written; and names out of a user's file lead to
no other folder.
"""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import rtda_deploy.files as files
from rtda_deploy.errors import ConfigError, FileAccessError
from rtda_deploy.files import (
    atomic_path,
    check_file_name,
    file_bytes,
    readable_file,
    sha256_file,
    writable_folder,
    write_bytes,
    write_text,
)


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_a_file_is_written_whole_and_nothing_else_stays(tmp_path: Path) -> None:
    assert write_bytes(tmp_path / "new" / "a.bin", b"\x00\xff") == tmp_path / "new" / "a.bin"
    assert write_text(tmp_path / "new" / "b.txt", "größer\n").read_bytes() == "größer\n".encode()
    assert names(tmp_path / "new") == ["a.bin", "b.txt"]


def test_the_final_name_appears_only_at_the_end(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "model.onnx") as temporary:
        temporary.write_bytes(b"half")
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".onnx", "encoders choose their container by it"
        assert temporary.name.startswith("."), "a search for models passes it over"
        assert not (tmp_path / "model.onnx").exists()
    assert (tmp_path / "model.onnx").read_bytes() == b"half"


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), SystemExit(1), MemoryError()])
def test_an_error_in_the_middle_leaves_the_old_file(tmp_path: Path, error: BaseException) -> None:
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(type(error)), atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("half of the ne")
        raise error
    assert names(tmp_path) == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_a_full_disk_in_the_middle_leaves_the_old_file_and_says_so(tmp_path: Path) -> None:
    write_text(tmp_path / "last.pth", "old")
    with pytest.raises(
        FileAccessError, match=r"cannot write .*last\.pth: No space left on device"
    ) as caught, atomic_path(tmp_path / "last.pth") as temporary:
        temporary.write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert "df -h" in caught.value.hint
    assert isinstance(caught.value.__cause__, OSError)
    assert names(tmp_path) == ["last.pth"] and (tmp_path / "last.pth").read_text() == "old"


def test_a_file_written_through_two_hands_is_called_by_its_final_name(tmp_path: Path) -> None:
    with pytest.raises(FileAccessError) as caught, atomic_path(tmp_path / "a.onnx") as outer, atomic_path(outer):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert caught.value.message == f"cannot write {tmp_path / 'a.onnx'}: No space left on device"
    assert "df -h" in caught.value.hint
    assert names(tmp_path) == []


@pytest.mark.parametrize("seam", ["fsync", "replace", "chmod"])
def test_a_disk_that_fails_at_the_last_moment_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seam: str
) -> None:
    def fails(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    write_text(tmp_path / "a.txt", "old")
    monkeypatch.setattr(files.os, seam, fails)
    with pytest.raises(FileAccessError, match="No space left"):
        write_text(tmp_path / "a.txt", "new")
    assert names(tmp_path) == ["a.txt"] and (tmp_path / "a.txt").read_text() == "old"


def test_the_content_is_on_the_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(files.os, "fsync", lambda handle: (calls.append("fsync"), fsync(handle))[1])
    monkeypatch.setattr(files.os, "replace", lambda a, b: (calls.append("replace"), replace(a, b))[1])
    write_text(tmp_path / "a.txt", "new")
    assert calls[:2] == ["fsync", "replace"]


def test_a_killed_writer_leaves_nothing_under_the_final_name(tmp_path: Path) -> None:
    program = textwrap.dedent(
        f"""
        import os, signal
        from rtda_deploy.files import atomic_path
        with atomic_path({str(tmp_path / "last.pth")!r}) as temporary:
            temporary.write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    write_text(tmp_path / "last.pth", "old")
    done = subprocess.run([sys.executable, "-c", program])
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / "last.pth").read_text() == "old"


def test_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "a.txt", "new")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o640


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a.txt") as first, atomic_path(tmp_path / "a.txt") as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert names(tmp_path) == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "first", "the outer block ends last"


def test_a_folder_where_a_file_should_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").mkdir()
    with pytest.raises(FileAccessError, match="Is a directory") as caught:
        write_bytes(tmp_path / "model.onnx", b"")
    assert caught.value.hint
    assert names(tmp_path) == ["model.onnx"]


def test_a_file_where_a_folder_should_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(FileAccessError) as caught:
        write_bytes(tmp_path / "runs" / "model.onnx", b"")
    assert caught.value.hint and str(tmp_path / "runs" / "model.onnx") in caught.value.message
    with pytest.raises(FileAccessError) as caught:
        writable_folder(tmp_path / "runs")
    assert caught.value.hint


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_a_place_that_takes_no_files_is_refused() -> None:
    """Even root cannot write there, so this also holds where tests run as root."""
    with pytest.raises(FileAccessError, match=r"/proc/model\.onnx") as caught:
        write_bytes("/proc/model.onnx", b"")
    assert caught.value.hint
    with pytest.raises(FileAccessError, match="/proc/run"):
        writable_folder("/proc/run")


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind root")
def test_a_folder_without_write_permission_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(FileAccessError, match="Permission denied") as caught:
            write_bytes(tmp_path / "a.txt", b"")
        assert "permission" in caught.value.hint
    finally:
        tmp_path.chmod(0o755)


def test_reading_says_missing_empty_or_a_folder(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    for name, words in (("missing", "No such file"), ("empty", "empty"), (".", "Is a directory")):
        with pytest.raises(FileAccessError, match=words) as caught:
            readable_file(tmp_path / name, what="model")
        assert caught.value.hint
    (tmp_path / "full").write_bytes(b"1")
    assert readable_file(tmp_path / "full") == tmp_path / "full"


def test_a_writable_folder_is_made_and_left_empty(tmp_path: Path) -> None:
    assert names(writable_folder(tmp_path / "a" / "b")) == []


def test_what_has_no_end_is_no_readable_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    writer = os.open(tmp_path / "pipe.png", os.O_RDWR)  # so that a look at it would not wait
    os.write(writer, b"x")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "link.png").symlink_to(write_text(tmp_path / "a", "a"))
    for name, said in (("pipe", "a named pipe"), ("zero", "a device")):
        with pytest.raises(FileAccessError, match=f"{name}.png is {said}, not a regular file"):
            readable_file(tmp_path / f"{name}.png", what="picture")
    os.close(writer)
    assert file_bytes(tmp_path / "link.png") == b"a"


def test_the_hash_is_sha256_of_the_bytes(tmp_path: Path) -> None:
    content = os.urandom(1 << 21)
    assert sha256_file(write_bytes(tmp_path / "a", content)) == hashlib.sha256(content).hexdigest()
    with pytest.raises(FileAccessError, match="missing"):
        sha256_file(tmp_path / "missing")


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_every_reason_has_its_fix(number: int) -> None:
    error = files.file_error(OSError(number, os.strerror(number)), "x.pth", "write")
    assert error.message == f"cannot write x.pth: {os.strerror(number)}"
    assert error.hint


def test_a_library_error_without_a_number_still_makes_a_sentence() -> None:
    assert files.file_error(OSError("odd"), "x.pth", "write").message == "cannot write x.pth: odd"
    assert files.file_error(OSError(), "x.pth", "write").message == "cannot write x.pth: OSError"


def test_a_signal_as_soon_as_the_file_is_there_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    close = os.close

    def interrupted(handle: int) -> None:
        close(handle)
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "close", interrupted)
    with pytest.raises(KeyboardInterrupt), atomic_path(tmp_path / "a.mp4"):
        pass
    assert names(tmp_path) == []


def test_leftovers_of_killed_writers_go_and_what_is_being_written_stays(tmp_path: Path) -> None:
    dead = tmp_path / ".best.0a1b2c3d.part.onnx"
    dead.write_bytes(b"half")
    below = tmp_path / "verify" / ".0.0a1b2c3d.part.png"
    below.parent.mkdir()
    below.write_bytes(b"half")
    mine = tmp_path / ".notes.part.txt"
    mine.write_text("a user's own file")
    with atomic_path(tmp_path / "last.onnx") as temporary:
        write_bytes(temporary, b"whole")  # replaces the locked file by another
        files.remove_leftovers(tmp_path, below=False)
        assert temporary.read_bytes() == b"whole"
        assert not dead.exists() and below.exists() and mine.exists()
    files.remove_leftovers(tmp_path)
    assert names(tmp_path) == [".notes.part.txt", "last.onnx", "verify"] and names(below.parent) == []
    assert not files._LOCKS, "no descriptor stays open"


def test_an_address_typed_for_a_file_keeps_its_secret() -> None:
    with pytest.raises(FileAccessError, match=r"cannot read http:/\*\*\*@host/m\.onnx: ") as caught:
        readable_file("http:/user:secret@host/m.onnx")
    assert "secret" not in caught.value.message
    with pytest.raises(FileAccessError, match=r"cannot read 10:30@home\.png: "):
        readable_file("10:30@home.png")


def test_names_that_are_no_text_are_written_spelled_out(tmp_path: Path) -> None:
    assert write_text(tmp_path / "a.json", "caf\udce9 é").read_bytes() == b"caf\\udce9 \xc3\xa9"


@pytest.mark.parametrize(
    "name", ["", " ", ".", "..", "...", "../x", "/etc", "a/b", "a\\b", "..\\x", "a\0b", "a\nb", " a", "é" * 51]
)
def test_a_name_that_is_no_part_of_a_file_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="a stage's name") as caught:
        check_file_name(name, "a stage's name")
    assert repr(name) in caught.value.message and "letters" in caught.value.hint


@pytest.mark.parametrize("name", ["adapted", "..hidden", "Straße 2", "v1.2-rc_3", "é" * 50])
def test_any_other_name_is_kept(name: str) -> None:
    assert check_file_name(name, "a stage's name") == name
