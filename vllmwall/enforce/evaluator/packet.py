"""The packet of an evaluation, its verdict, and the rules that led to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from vllmwall.enforce.backend import EnforceError
from vllmwall.enforce.nftables.objects import Meaning
from vllmwall.model import Address

SYN = frozenset({"syn"})


class NotUnderstoodError(EnforceError):
    """A part of the table on the packet's way that this evaluator does not know.

    ``where`` is the chain, set or table; ``text`` the rule or element as nft prints it.
    """

    def __init__(self, where: str, text: str) -> None:
        super().__init__(f"{where}: vllmwall does not understand: {text}")
        self.where = where
        self.text = text


class Verdict(str, Enum):
    """The fate of the packet. ``accept`` ends our evaluation; other tables come after it.

    ``depends``: on the number of earlier packets or connections of this source.
    """

    ACCEPT = "accept"
    DROP = "drop"
    REJECT = "reject"
    DEPENDS = "depends"


@dataclass(frozen=True)
class Socket:
    """The socket that the kernel would find for the packet.

    ``cgroups`` holds the number of the cgroup at each depth from 1 to that in which the socket
    was made (net/netfilter/nft_socket.c looks up the one of the level that the rule names).
    ``transparent``: IP_TRANSPARENT is set.
    """

    cgroups: Mapping[int, int] = field(default_factory=dict)
    transparent: bool = False


@dataclass(frozen=True)
class Packet:
    """One packet that arrives. The family is that of its addresses.

    ``proto`` is the name in /etc/protocols (``tcp``, ``ipv6-icmp``); empty: nft finds no transport
    header (a chain of IPv6 headers that is cut). Ports are None where the
    packet has none: another protocol, a later fragment. ``flags`` are those of TCP. ``interface``
    is where it came in, ``slave`` the number of the VRF's member that it came in by (0: none).
    ``slave_name`` is its name; of a packet of this host to itself it is the VRF's own.
    ``state`` is conntrack's: ``new``, ``established``, ``related``, ``invalid``, ``untracked``.
    ``shifted``: it is an IPv6 fragment with another extension header before that of the fragment.
    ``first`` is the address and port that it was sent to, where NAT changed them.
    """

    source: Address
    destination: Address
    proto: str
    dport: int | None = None
    sport: int | None = None
    flags: frozenset[str] = SYN
    interface: str = "eth0"
    slave: int = 0
    socket: Socket | None = None
    state: str = "new"
    slave_name: str = ""
    first: tuple[Address, int] | None = None
    shifted: bool = False

    @property
    def family(self) -> int:
        """4 or 6."""
        return self.source.version


@dataclass(frozen=True)
class Step:
    """A rule that the packet met. ``element`` is the one that matched in ``set``; empty: the rule
    looks up nothing, or did not match. ``matched`` None: it depends on earlier packets.

    ``meaning`` is that of a rule of ours; NONE: another program wrote it, or it only leads on.
    """

    chain: str
    rule: str
    matched: bool | None
    set: str = ""
    element: str = ""
    meaning: Meaning = Meaning.NONE


@dataclass(frozen=True)
class Judgement:
    """The verdict and the rules that led to it. The last step decided: a rule, or a policy.

    With ``depends`` the last step is the rule in doubt; ``outcomes`` are the judgements when
    it matches and when it does not.
    """

    verdict: Verdict
    trail: tuple[Step, ...]
    outcomes: tuple[Judgement, ...] = ()

    @property
    def decided(self) -> Step:
        """The rule (or policy) that decided."""
        return self.trail[-1]

    @property
    def way(self) -> tuple[Step, ...]:
        """The steps that matched."""
        return tuple(step for step in self.trail if step.matched is not False)

    @property
    def possible(self) -> frozenset[Verdict]:
        """The possible verdicts: one, unless it depends."""
        if self.verdict is not Verdict.DEPENDS:
            return frozenset({self.verdict})
        return frozenset(one for outcome in self.outcomes for one in outcome.possible)
