"""Lists of networks with sources and ends: peers and bans.

Promises that no failure of a source makes the list of peers wider.
"""

from vllmwall.networks.dns import Lookups
from vllmwall.networks.peerlist import PeerList
from vllmwall.networks.sources import PeerError, PeerSource

__all__ = ["Lookups", "PeerError", "PeerList", "PeerSource"]
