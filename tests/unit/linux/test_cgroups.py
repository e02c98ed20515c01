"""Which part of a cgroup's path is a job's own, and where the hierarchy is."""

from __future__ import annotations

from pathlib import Path

import pytest

from vllmwall.linux.cgroups import (
    SLICE,
    comes_again,
    is_within,
    job_of,
    level_of,
    mount_point,
    number_of,
    open_folder,
)

ID = "0123456789abcdef" * 4
POD = "pod7d0f6b4e_1b1f_4f2e_9c1e_0a6b3c9d8e7f"
SLICED = f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-{POD}.slice"
USER = "/user.slice/user-1000.slice/user@1000.service"
SLURM = "/system.slice/slurmstepd.scope/job_7"
MACHINE = "/machine.slice/systemd-nspawn@gpu.service/payload"

OWN = [
    ("/system.slice/vllm.service", ""),
    ("/system.slice/vllm.service", "/workers/0"),
    ("/system.slice/system-vllm.slice/vllm@8000.service", ""),
    (f"/system.slice/docker-{ID}.scope", ""),
    (f"/system.slice/docker-{ID}.scope", "/init"),
    (f"/docker/{ID}", ""),
    (f"/docker/{ID}", "/init"),
    (f"/system.slice:docker:{ID}", ""),
    (f"/machine.slice/libpod-{ID}.scope", "/container"),
    (f"{USER}/user.slice/libpod-{ID}.scope", "/container"),
    (f"{SLICED}/cri-containerd-{ID}.scope", ""),
    (f"{SLICED}/crio-{ID}.scope", "/container"),
    (f"/kubepods/burstable/pod7d0f6b4e/{ID}", ""),
    (f"/kubepods/pod7d0f6b4e/{ID}", "/nested"),
    (f"{SLURM}/step_0", "/user/task_0"),
    (f"{SLURM}/step_batch", "/user/task_special"),
    (f"{SLURM}/step_extern", "/user"),
    (f"{MACHINE}/system.slice/vllm.service", ""),
    ("/machine.slice/machine-gpu.scope", "/payload"),
    (f"{USER}/app.slice/vllm.service", ""),
    (f"{USER}/app.slice/run-r1f.scope", ""),
    ("/system.slice/my server.service", ""),
    ("/system.slice/my\\x2dserver.service", "/a b"),
    ("/system.slice/überwacht.service", ""),
]

SHARED = [
    "/",
    "",
    "/init.scope",
    "/user.slice",
    "/user.slice/user-1000.slice/session-4.scope",
    "/user.slice/user-1000.slice/session-c1.scope/below",
    USER,
    f"{USER}/init.scope",
    f"{USER}/app.slice",
    "/system.slice",
    "/system.slice/slurmstepd.scope",
    f"{SLURM}/",
    "/system.slice/slurmstepd.scope/system",
    "/system.slice/gpu1_slurmstepd.scope/system",
    f"{MACHINE}/init.scope",
    f"{MACHINE}/user.slice/user-0.slice/session-1.scope",
    SLICED,
    "/kubepods/burstable/pod7d0f6b4e",
    "/docker",
    f"/docker/{ID[:-1]}",
    f"/docker/{ID}0",
    f"/docker/{ID.upper()}",
    "/.service",
    "/system.slice/vllm.service.d",
    "/system.slice/vllm.service (deleted)",
]


@pytest.mark.parametrize(("job", "below"), OWN)
def test_a_job_has_its_innermost_unit_to_itself(job: str, below: str) -> None:
    """Containers, units, scopes and Slurm steps are a job's own, with whatever is below."""
    assert job == job_of(job + below)


@pytest.mark.parametrize("path", SHARED)
def test_what_a_user_shares_is_no_jobs(path: str) -> None:
    """Sessions, service managers, init, slices and pods hold others too: never guarded."""
    assert job_of(path) is None


def test_a_job_in_a_container_is_told_from_the_container() -> None:
    """The innermost unit is the job, or the guard would close its neighbours."""
    assert f"/docker/{ID}/system.slice/a.service" == job_of(f"/docker/{ID}/system.slice/a.service")


def test_a_session_in_a_unit_is_a_session() -> None:
    """The unit around it is not asked: the session's user starts other things in it."""
    assert job_of("/system.slice/vm.service/session-1.scope/vllm") is None


def test_a_depth_is_counted_from_the_root() -> None:
    """`socket cgroupv2 level` counts so; empty parts are none."""
    assert [0, 0, 1, 2, 2] == [level_of(path) for path in ("/", "", SLICE, "/a/b", "//a//b/")]


def test_within_ends_at_the_names_end() -> None:
    """`/a/bc` is not below `/a/b`, and everything is below the root."""
    assert is_within("/a/b", "/a/b")
    assert is_within("/a/b/c", "/a/b")
    assert is_within("/a", "/")
    assert not is_within("/a/bc", "/a/b")
    assert not is_within("/a", "/a/b")


def test_units_and_containers_come_again() -> None:
    """Under the same path, whichever engine and cgroup driver; other scopes never do."""
    engines = ("docker", "libpod", "crio", "cri-containerd", "nerdctl")
    again = ["/system.slice/a.service", SLICE, "/machine.slice/machine-a\\x2db.scope"]
    again += [f"/system.slice/{one}-{ID}.scope" for one in engines]
    again += [f"/docker/{ID}", f"/libpod_parent/libpod-{ID}", f"/kubepods/burstable/pod1/{ID}"]
    again += [f"/kubepods.slice/kubepods-pod1.slice/cri-containerd-{ID}.scope"]
    never = ["/a.scope", f"/docker/{ID}x", f"/docker/{ID[1:]}", f"{SLURM}/step_0", "/system.slice"]
    never += [f"/docker/{ID}/init", "/user.slice/user-1.slice/session-1.scope"]
    assert again == [path for path in (*again, *never) if comes_again(path)]


def mounted(folder: Path, *lines: str) -> str:
    """A mountinfo of these lines; ``{0}`` becomes a folder that looks like a hierarchy's root."""
    (folder / "cg roup").mkdir(exist_ok=True)
    (folder / "cg roup" / "cgroup.procs").touch()
    path = str(folder / "cg roup").replace(" ", "\\040")
    written = folder / "mountinfo"
    written.write_text("".join(line.replace("{0}", path) + "\n" for line in lines))
    return str(written)


V1 = "35 25 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory"
V2 = "36 25 0:31 / {0} rw,nosuid shared:5 - cgroup2 none rw"


def test_the_hierarchy_is_found_beside_those_of_v1(tmp_path: Path) -> None:
    """Hybrid hosts have it elsewhere; a blank in the path is written as octal."""
    assert tmp_path / "cg roup" == mount_point(mounted(tmp_path, V1, V2))


def test_no_hierarchy_is_none(tmp_path: Path) -> None:
    """v1 alone, an empty list and no list at all."""
    assert mount_point(mounted(tmp_path, V1)) is None
    assert mount_point(mounted(tmp_path)) is None
    assert mount_point(str(tmp_path / "nothing")) is None


def test_a_part_of_the_hierarchy_is_not_its_root(tmp_path: Path) -> None:
    """A bind mount of one cgroup would give every path another meaning."""
    part = "30 25 0:31 /docker /run/part rw - cgroup2 none rw"
    assert tmp_path / "cg roup" == mount_point(mounted(tmp_path, part, V2))


def test_a_covered_mount_is_passed_over(tmp_path: Path) -> None:
    """The list names what lies below another mount too; nobody can look in there."""
    covered = f"30 25 0:31 / {tmp_path}/covered rw - cgroup2 none rw"
    assert tmp_path / "cg roup" == mount_point(mounted(tmp_path, covered, V2))


def test_a_cgroup_with_the_name_of_a_covered_mount_is_not_the_root(tmp_path: Path) -> None:
    """`/sys/fs/cgroup/unified` on a hybrid host over which the v2 hierarchy was mounted."""
    (tmp_path / "top/unified").mkdir(parents=True)
    for folder in ("top", "top/unified"):
        (tmp_path / folder / "cgroup.procs").touch()
    lines = [
        f"30 25 0:31 / {tmp_path}/{one} rw - cgroup2 none rw" for one in ("top/unified", "top")
    ]
    assert tmp_path / "top" == mount_point(mounted(tmp_path, *lines))


def test_a_path_that_is_not_there_has_no_number(tmp_path: Path) -> None:
    """A cgroup that ended, or a name that no file can have: None, never an error."""
    (tmp_path / "here").mkdir()
    assert (tmp_path / "here").stat().st_ino == number_of("/here", tmp_path)
    assert number_of("/gone", tmp_path) is None
    assert number_of("/" + "x" * 5000, tmp_path) is None
    assert number_of("/\0", tmp_path) is None


def test_only_folders_are_opened(tmp_path: Path) -> None:
    """A file is no cgroup."""
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="Not a directory"):
        open_folder("/file", tmp_path)
