"""Which line says what is in force."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

from vllmwall.config.origins import of_audience, of_network
from vllmwall.model import Role

DEFAULT = "by default: no configuration file names it"


def written(folder: Path, **files: str) -> list[Path]:
    """Files in the order in which they are merged."""
    made = [folder / f"{name}.toml" for name in files]
    for file, text in zip(made, files.values(), strict=True):
        file.write_text(text)
    return made


def test_the_last_file_that_names_a_role_counts(tmp_path: Path) -> None:
    """Then `default`, which opens and closes no API; then what holds by itself."""
    files = written(
        tmp_path,
        a="[policy]\ntcpstore = 'peers'\ngloo = 'node'\n",
        b="mode = 'audit'\n[policy]\ndefault = 'node'\ntcpstore = 'node'\n",
    )
    assert f"{files[1]}:4 [policy] tcpstore" == of_audience(files, Role.TCPSTORE)
    assert f"{files[0]}:3 [policy] gloo" == of_audience(files, Role.GLOO)
    assert f"{files[1]}:3 [policy] default" == of_audience(files, Role.NCCL)
    assert DEFAULT == of_audience(files, Role.API)
    assert DEFAULT == of_audience(files[:1], Role.NCCL)


def test_a_network_is_found_where_it_is_written(tmp_path: Path) -> None:
    """However it is spelled; in the list that is meant, and nowhere else."""
    files = written(
        tmp_path,
        a="[peers]\ncidrs = [\n  '10.0.0.0/24',\n  '2001:DB8::/32',\n]\n",
        b="[groups]\nm = ['10.9.0.0/24']\n",
    )
    peers = ("peers", "cidrs")
    assert f"{files[0]}:3" == of_network(files, peers, ip_network("10.0.0.0/24"))
    assert f"{files[0]}:4" == of_network(files, peers, ip_network("2001:db8::/32"))
    assert "" == of_network(files, peers, ip_network("10.9.0.0/24"))
    assert f"{files[1]}:2" == of_network(files, ("groups", "m"), ip_network("10.9.0.0/24"))


def test_a_file_that_went_or_broke_says_nothing(tmp_path: Path) -> None:
    """The configuration in force stays; only the line is not known."""
    files = written(tmp_path, a="[policy\n", b="peers = 3\n")
    files.append(tmp_path / "gone.toml")
    assert DEFAULT == of_audience(files, Role.NCCL)
    assert "" == of_network(files, ("peers", "cidrs"), ip_network("10.0.0.0/24"))
