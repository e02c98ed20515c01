"""Files that users name are read with their rights, in a process that can be given up."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.hung_mount import USER, as_user, hung_mount
from tests.support.sharing import folder_for_all_users
from tests.support.waiting import eventually
from vllmwall.observe.files import Wanted, answer_of, read_now
from vllmwall.observe.proc import read_stat
from vllmwall.observe.user_files import UserFiles

ROOT = 0
Started = Callable[[list[str]], int]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that all users can reach."""
    with folder_for_all_users() as made:
        yield made


@pytest.fixture
def started() -> Iterator[Started]:
    """Starts processes that the test ends; their pids."""
    with contextlib.ExitStack() as stack:

        def start(argv: list[str]) -> int:
            process = subprocess.Popen(argv, cwd="/", start_new_session=True)
            stack.callback(process.wait)
            stack.callback(process.kill)
            executed = Path(f"/proc/{process.pid}/exe")
            eventually(lambda: executed.resolve().name not in ("setpriv", "unshare"), "it runs")
            return process.pid

        yield start


def wanted(pid: int, path: Path | str, kind: str = "settings") -> Wanted:
    stat = read_stat(pid)
    assert stat is not None
    return Wanted(pid, stat.start_time, kind, str(path))


def test_a_file_is_read_with_the_rights_of_the_process(folder: Path, started: Started) -> None:
    """Not with ours: a link of its user must not make root read a file of root."""
    secret = folder / "secret"
    secret.write_text("port: 1234\n")
    secret.chmod(0o600)
    (folder / "link").symlink_to(secret)
    users = wanted(started(as_user(["sleep", "100"])), folder / "link")
    roots = wanted(started(["sleep", "100"]), folder / "link")
    assert {"refused": "EACCES"} == answer_of(users)
    assert {"found": {"port": "1234"}} == answer_of(roots)
    secret.chmod(0o644)
    assert {"found": {"port": "1234"}} == answer_of(users)


def test_its_groups_count(folder: Path, started: Started) -> None:
    """Nobody else's do: a file of a group is read for a member, with the supplementary groups."""
    file = folder / "f.yaml"
    file.write_text("port: 1\n")
    os.chown(file, 0, 4321)
    file.chmod(0o640)
    member = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--groups=4321", "sleep", "100"]
    assert {"found": {"port": "1"}} == answer_of(wanted(started(member), file))
    assert {"refused": "EACCES"} == answer_of(wanted(started(as_user(["sleep", "100"])), file))


def test_root_of_a_process_keeps_no_capability(folder: Path, started: Started) -> None:
    """A process of root gets only what the file's mode lets its owner read."""
    file = folder / "f.yaml"
    file.write_text("port: 1\n")
    os.chown(file, USER, USER)
    file.chmod(0o600)
    assert {"refused": "EACCES"} == answer_of(wanted(started(["sleep", "100"]), file))


def test_an_absolute_link_is_followed_from_the_root_of_the_process(
    folder: Path, started: Started
) -> None:
    """In a container it leads to the container's file, never to the host's."""
    jail = folder / "jail"
    (jail / "inner").mkdir(parents=True)
    host = folder / "host.yaml"
    host.write_text("model: of-the-host\n")
    (jail / "c.yaml").symlink_to(host)
    (jail / "d.yaml").symlink_to("/inner/e.yaml")
    (jail / "inner/e.yaml").write_text("model: of-the-container\n")
    code = f"import os, time; os.chroot({str(jail)!r}); os.chdir('/inner'); print(1, flush=True)"
    script = f"{code}; time.sleep(100)"
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert b"1\n" == process.stdout.readline()
        assert {"refused": "ENOENT"} == answer_of(wanted(process.pid, "/c.yaml"))
        found = {"found": {"model": "of-the-container"}}
        assert found == answer_of(wanted(process.pid, "/d.yaml"))
        assert found == answer_of(wanted(process.pid, "e.yaml"))
        assert found == answer_of(wanted(process.pid, "../../../../inner/e.yaml"))
    finally:
        process.kill()
        process.communicate()


def test_nothing_is_read_for_a_setuid_program(folder: Path, started: Started) -> None:
    """The user who started it chose its words, and it has the rights of root."""
    file = folder / "f.yaml"
    file.write_text("port: 1\n")
    code = f"import os; os.setresuid({USER}, 0, 0); import time; time.sleep(100)"
    for ids in (f"{USER}, 0, 0", f"0, {USER}, 0", f"{USER}, {USER}, 0"):
        code = f"import os, time; os.setresuid({ids}); time.sleep(100)"
        pid = started([sys.executable, "-c", code])
        eventually(lambda: _uids(pid) == [*map(int, ids.split(","))], "it changed")  # noqa: B023
        assert {"refused": "its four user ids are not equal"} == answer_of(wanted(pid, file))


def _uids(pid: int) -> list[int]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return [int(one) for line in lines if line.startswith("Uid:") for one in line.split()[1:4]]


def test_a_pid_that_was_reused_is_another_process(folder: Path, started: Started) -> None:
    """Its file would be read with the rights of an unrelated process."""
    (folder / "f.yaml").write_text("port: 1\n")
    one = wanted(started(["sleep", "100"]), folder / "f.yaml")
    assert {"found": {"port": "1"}} == answer_of(one)
    before = Wanted(one.pid, one.start_time - 1, one.kind, one.path)
    assert {"refused": "it has ended"} == answer_of(before)


MERGES = "\n".join(
    ["a0: &a0 {port: 1}"]
    + [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}" for n in range(1, 12)]
)
EXPANDED = "\n".join(
    ["a0: &a0 [" + "x, " * 100 + "x]"]
    + [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 40)]
)


@pytest.mark.parametrize(
    "text",
    [
        *("a: !!bool x", 'a: !!int ""', "a: !!timestamp x", "a: !!float ''", "? [a]\n: 1"),
        *(f"port: 0x{'f' * 6000}", "[" * 30_000, MERGES, EXPANDED, "a: &a [*a]", "\0", "%YAML 9"),
        *("port: !!python/object/apply:os.system [id]", "a: {<<: 1}", "---\na: 1\n---\nb: 2"),
    ],
)
def test_no_file_costs_more_than_its_limits(folder: Path, started: Started, text: str) -> None:
    """There is an answer for each within two seconds, and none has a port."""
    (folder / "f.yaml").write_text(text)
    one = wanted(started(as_user(["sleep", "100"])), folder / "f.yaml")
    begun = time.monotonic()
    answer = answer_of(one)
    assert time.monotonic() - begun < 2
    assert answer.keys() <= {"refused", "silent", "found"}
    assert "port" not in str(answer.get("found"))


def test_memory_and_time_of_a_child_are_bounded() -> None:
    """By the kernel, whatever it does."""
    code = "from vllmwall.linux.bounded import limit; limit(1, 32 << 20)\n"
    for doing, ends in (("x = bytearray(40 << 20)", 1), ("while True: pass", -9)):
        done = subprocess.run(
            [sys.executable, "-c", code + doing], stderr=subprocess.DEVNULL, check=False, timeout=20
        )
        assert ends == done.returncode


def test_a_mount_that_does_not_answer_costs_one_child(folder: Path, started: Started) -> None:
    """It is given up after its time, though it cannot be ended."""
    with hung_mount(folder / "mount") as file:
        one = wanted(started(as_user(["sleep", "100"])), file)
        answer = answer_of(one, 0.2)
        assert {"silent", "hung"} == answer.keys()
        stat = read_stat(int(str(answer["hung"])))
        assert stat is not None
        assert "D" == stat.state


def test_a_working_directory_on_such_a_mount_too(folder: Path, started: Started) -> None:
    """And a root: the file itself may be elsewhere."""
    with hung_mount(folder / "mount") as file:
        one = wanted(started(as_user(["sleep", "100"])), file.parent / "../f.yaml")
        (folder / "f.yaml").write_text("port: 1\n")
        assert "found" in answer_of(wanted(one.pid, folder / "f.yaml"))
        assert "silent" in answer_of(Wanted(one.pid, one.start_time, "ray", str(file.parent)), 0.2)


def test_an_audit_reads_all_settings(folder: Path, started: Started) -> None:
    """In the same way, and waits."""
    (folder / "f.yaml").write_text("port: 1\nno_such_key: [a]\n")
    one = wanted(started(as_user(["sleep", "100"])), folder / "f.yaml", "yaml")
    assert {"port": 1, "no-such-key": ["a"]} == read_now(one)


class Asking:
    """A loop around `UserFiles`."""

    def __init__(self) -> None:
        self.files = UserFiles()

    def until_read(self, *all_wanted: Wanted, user: int = USER) -> None:
        """Until none of them waits for its first reading."""

        def read() -> bool:
            self.files.wait(0.1)
            reasons = [self.files.content(one, user)[1] for one in all_wanted]
            return "it has not been read yet" not in reasons

        eventually(read, "the files were read")


@pytest.fixture
def asking() -> Iterator[Asking]:
    """Asks for files."""
    made = Asking()
    yield made
    made.files.close()


def test_files_are_asked_for_and_known_later(
    folder: Path, started: Started, asking: Asking
) -> None:
    """A pass never waits for one."""
    (folder / "f.yaml").write_text("port: 1\n")
    one = wanted(started(as_user(["sleep", "100"])), folder / "f.yaml")
    assert ({}, "it has not been read yet") == asking.files.content(one, USER)
    asking.until_read(one)
    assert ({"port": "1"}, "") == asking.files.content(one, USER)


def test_a_users_hung_files_delay_nobody_else(
    folder: Path, started: Started, asking: Asking
) -> None:
    """Two children hang for a user at most, and are not joined by others at every pass."""
    (folder / "f.yaml").write_text("port: 1\n")
    with hung_mount(folder / "mount") as file:
        pids = [started(as_user(["sleep", "100"])) for _ in range(4)]
        hung = [wanted(pid, file) for pid in pids]
        for one in hung:
            asking.files.content(one, USER)
        asking.files.advance()
        other = wanted(started(as_user(["sleep", "100"], USER + 1)), folder / "f.yaml")
        begun = time.monotonic()
        asking.until_read(other, user=USER + 1)
        assert ({"port": "1"}, "") == asking.files.content(other, USER + 1)
        assert asking.files.content(hung[3], USER)[1] == "it has not been read yet"
        asking.until_read(*hung)
        assert time.monotonic() - begun < 10
        children = _hung_children()
        assert 2 == len(children)
        later = wanted(pids[0], folder / "f.yaml")
        asking.files.content(later, USER)
        asking.files.wait(3)
        assert asking.files.content(later, USER)[1] == "it has not been read yet"
        assert children == _hung_children()
    eventually(lambda: not _hung_children(), "they end with the mount")
    asking.until_read(later)
    assert ({"port": "1"}, "") == asking.files.content(later, USER)


def _hung_children() -> list[int]:
    """Processes of the user that are ours and wait in the kernel."""
    found = []
    for pid in (int(one.name) for one in Path("/proc").iterdir() if one.name.isdigit()):
        with contextlib.suppress(OSError, ValueError):
            stat = read_stat(pid)
            if stat is not None and stat.state == "D" and _uids(pid) == [USER] * 3:
                found.append(pid)
    return sorted(found)


def test_files_are_read_where_proc_is_read_only(folder: Path, started: Started) -> None:
    """As in a container: that a reader cannot be made the first to be killed does not stop it."""
    (folder / "f.yaml").write_text("port: 1\n")
    one = wanted(started(as_user(["sleep", "100"])), folder / "f.yaml")
    code = f"from vllmwall.observe.files import Wanted, read_now; print(read_now({one!r}))"
    script = 'mount -o remount,bind,ro /proc && ! echo 0 2>&- > /proc/self/oom_score_adj && "$@"'
    argv = ["unshare", "--mount", "sh", "-c", script, "sh", sys.executable, "-c", code]
    done = subprocess.run(argv, check=True, capture_output=True, text=True)
    assert "{'port': '1'}\n" == done.stdout
