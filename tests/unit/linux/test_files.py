"""Trusted files: a user who can write the configuration decides who may connect."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from vllmwall.config import ConfigError, load

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")


def complaint(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path)
    return str(caught.value)


@pytest.mark.parametrize("mode", [0o666, 0o664, 0o646, 0o622])
def test_a_file_that_others_can_write_is_refused(write: Callable[..., Path], mode: int) -> None:
    """Group and others may read, never write; the message holds the command that helps."""
    path = write("")
    path.chmod(mode)
    expected = f"is writable by group or others (mode {mode:04o}); run: chmod go-w {path}"
    assert complaint(path) == f"{path}: {expected}"


@as_root
def test_a_file_of_another_user_is_refused(write: Callable[..., Path]) -> None:
    """Its owner could change it whenever he likes."""
    path = write("")
    os.chown(path, NOBODY, 0)
    assert complaint(path) == (
        f"{path}: belongs to uid {NOBODY}, who could change it; it must belong to root "
        f"(chown root {path})"
    )


def test_a_directory_that_others_can_write_is_refused(
    write: Callable[..., Path], etc: Path
) -> None:
    """Who can write the directory can put another file in the file's place."""
    path = write("")
    etc.chmod(0o777)
    assert complaint(path).startswith(f"{etc}: is writable by group or others (mode 0777)")


def test_a_drop_in_directory_that_others_can_write_is_refused(
    write: Callable[..., Path], etc: Path
) -> None:
    """Who can write conf.d can add a file."""
    path = write("")
    drop_in = write("", "conf.d/a.toml")
    drop_in.parent.chmod(0o775)
    assert complaint(path).startswith(f"{etc}/conf.d: is writable by group or others")


def test_a_sticky_directory_leaves_it_to_the_files(write: Callable[..., Path], etc: Path) -> None:
    """In /tmp nobody can replace another's file, so `vllmwall check /tmp/new.toml` works."""
    path = write("")
    etc.chmod(0o1777)
    assert load(path).files == (path,)


@as_root
def test_a_sticky_directory_of_another_user_is_refused(
    write: Callable[..., Path], etc: Path
) -> None:
    """Its owner may replace any file in it all the same."""
    path = write("")
    etc.chmod(0o1755)
    os.chown(etc, NOBODY, 0)
    assert complaint(path).startswith(f"{etc}: belongs to uid {NOBODY}")


@as_root
def test_a_user_may_have_files_of_his_own() -> None:
    """Who is not root may check a file that belongs to him, beside those of root."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        path = directory / "vllmwall.toml"
        path.write_text("")
        path.chmod(0o644)
        os.chown(path, NOBODY, 0)
        os.seteuid(NOBODY)
        try:
            assert load(path).files == (path,)
        finally:
            os.seteuid(0)


def test_what_is_wrong_inside_an_untrusted_file_is_said_too(write: Callable[..., Path]) -> None:
    """All problems at once."""
    path = write("bad = 1")
    path.chmod(0o666)
    assert "unknown key" in complaint(path)
    assert "writable" in complaint(path)


def test_a_named_pipe_does_not_hold_us_up(etc: Path) -> None:
    """Something that is no file is an error, not a daemon that hangs."""
    path = etc / "vllmwall.toml"
    os.mkfifo(path)
    assert complaint(path) == f"{path}: cannot be read: {path} is no regular file"


def test_a_directory_in_the_place_of_the_file_is_an_error(etc: Path) -> None:
    """Said like any other thing that cannot be read."""
    path = etc / "vllmwall.toml"
    path.mkdir()
    assert complaint(path) == f"{path}: cannot be read: {path} is no regular file"


def test_a_huge_file_is_an_error(etc: Path) -> None:
    """A sparse file of a terabyte must not eat the node's memory."""
    path = etc / "vllmwall.toml"
    with path.open("wb") as file:
        file.truncate(2**40)
    path.chmod(0o644)
    assert "is larger than 16777216 bytes" in complaint(path)


def test_a_file_that_is_no_text_is_an_error(etc: Path) -> None:
    """TOML is UTF-8."""
    path = etc / "vllmwall.toml"
    path.write_bytes(b"mode = '\xff'")
    path.chmod(0o644)
    assert complaint(path) == f"{path}: is not UTF-8 text (byte 8)"


def test_a_conf_d_that_cannot_be_listed_is_an_error(etc: Path, write: Callable[..., Path]) -> None:
    """A loop of symbolic links, as an example that stops root too."""
    (etc / "conf.d").symlink_to(etc / "conf.d")
    path = write("")
    assert complaint(path) == (f"{etc}/conf.d: cannot be read: Too many levels of symbolic links")
