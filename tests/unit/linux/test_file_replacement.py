"""Files replaced in one step: `vllmwall.linux.files.replace_file` and `save_text`."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from threading import Event, Thread

import pytest

from vllmwall.linux.files import replace_file, save_text


@pytest.mark.parametrize("durable", [True, False])
def test_the_file_gets_the_content_and_the_mode(tmp_path: Path, *, durable: bool) -> None:
    """Whatever mode the old file had and whatever the umask is."""
    path = tmp_path / "state"
    path.write_text("old")
    path.chmod(0o666)
    before = os.umask(0o077)
    try:
        replace_file(path, b"new", 0o644, durable=durable)
    finally:
        os.umask(before)
    assert (b"new", 0o644) == (path.read_bytes(), stat.S_IMODE(path.stat().st_mode))
    assert [path] == list(tmp_path.iterdir())


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    """Another user may own the directory and point a link of that name at any file."""
    target, path = tmp_path / "target", tmp_path / "link"
    target.write_text("untouched")
    path.symlink_to(target)
    replace_file(path, b"ours", 0o644, durable=False)
    assert ("untouched", "ours") == (target.read_text(), path.read_text())
    assert not path.is_symlink()


def test_a_failure_keeps_the_old_file_and_leaves_no_other(tmp_path: Path) -> None:
    """The last step fails here: a directory cannot be replaced by a file."""
    path = tmp_path / "state"
    path.mkdir()
    with pytest.raises(OSError, match="state"):
        replace_file(path, b"new", 0o644, durable=False)
    assert [path] == list(tmp_path.iterdir())


def test_a_reader_never_sees_a_part(tmp_path: Path) -> None:
    """A file that is truncated and written again is empty for a moment."""
    path, seen, stop = tmp_path / "state", set[bytes](), Event()
    contents = [b"a" * 200_000, b"b" * 100_000]
    path.write_bytes(contents[0])

    def read() -> None:
        while not stop.is_set():
            seen.add(path.read_bytes())

    reader = Thread(target=read)
    reader.start()
    for turn in range(300):
        replace_file(path, contents[turn % 2], 0o600, durable=False)
    stop.set()
    reader.join()
    assert seen <= set(contents)


def test_saved_text_makes_its_directory(tmp_path: Path) -> None:
    """The runtime directory may not exist yet."""
    path = tmp_path / "run" / "vllmwall" / "state"
    save_text(path, "é\n", mode=0o600)
    assert "é\n" == path.read_text(encoding="utf-8")
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)
