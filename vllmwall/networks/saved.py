"""The drop-in file that ``peers add --save`` writes: conf.d/90-peers-saved.toml.

Promises valid TOML, replaced in one step, and the same bytes for the same networks. A file with
any other key in it is refused, so that no key is lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import get_mixed_type_key
from pathlib import Path

from vllmwall.cidr import parse_network
from vllmwall.config.toml import loads
from vllmwall.linux.files import read_trusted, save_text
from vllmwall.model import Network
from vllmwall.networks.sources import PeerError

FILE_NAME = "90-peers-saved.toml"

_HEAD = """\
# Written by `vllmwall peers add --save`; `vllmwall peers remove --save` takes networks out.
# Both keep no comments; anything but these networks belongs into another file.
[peers]
cidrs = [
"""


def read_saved(path: Path) -> tuple[Network, ...]:
    """The networks in the drop-in file; none when it is not there. Raises PeerError."""
    try:
        content = read_trusted(path)
        if content.complaint is not None:
            raise PeerError(f"{path} {content.complaint}")
        return _networks_of(loads(content.text))
    except FileNotFoundError:
        return ()
    except ValueError as error:
        raise PeerError(
            f"{path} is not as vllmwall writes it ({error}); move what else is in it to another "
            "file, or delete it"
        ) from error
    except OSError as error:
        raise PeerError(f"{path} cannot be read: {error.strerror or error}") from error


def write_saved(path: Path, networks: Iterable[Network]) -> None:
    """Make the drop-in file hold these networks; without any, there is none. Raises PeerError."""
    lines = "".join(f'  "{network}",\n' for network in sorted(networks, key=get_mixed_type_key))
    try:
        if lines:
            save_text(path, f"{_HEAD}{lines}]\n", mode=0o644)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise PeerError(f"{path} cannot be written: {error.strerror or error}") from error


def _networks_of(tree: Mapping[str, object]) -> tuple[Network, ...]:
    """Raises ValueError for anything but ``[peers] cidrs``."""
    peers = tree.get("peers")
    if set(tree) != {"peers"} or not isinstance(peers, Mapping) or set(peers) != {"cidrs"}:
        raise ValueError("it should hold [peers] cidrs and nothing else")
    cidrs = peers["cidrs"]
    if not isinstance(cidrs, list) or not all(isinstance(cidr, str) for cidr in cidrs):
        raise ValueError("cidrs should be a list of strings")
    return tuple(map(parse_network, cidrs))
