"""Where trusted CIDRs come from: the configuration, files, DNS, and commands at runtime.

Promises one merged list that never gets wider because something went wrong. Imports the
configuration (and with it pydantic): for the daemon, not for commands that must be quick.
"""

from vllmwall.networks.dns import Lookups
from vllmwall.networks.errors import PeerError
from vllmwall.networks.peerlist import PeerList
from vllmwall.networks.sources import PeerSource

__all__ = ["Lookups", "PeerError", "PeerList", "PeerSource"]
