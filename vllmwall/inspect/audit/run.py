"""Runs an audit: reads the node and the daemon's status, and judges them."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path

from vllmwall.api.status_answer import ListenerStatus, Status
from vllmwall.config.models import Config
from vllmwall.decide.scope import within
from vllmwall.inspect.audit.collect import DaemonView, Lookup, Spot, subjects
from vllmwall.inspect.audit.collect.weights import ChecksumError, read_checksums
from vllmwall.inspect.audit.judge import judge
from vllmwall.inspect.audit.output import audit_answer
from vllmwall.inspect.audit.types import AuditAnswer
from vllmwall.model import PUBLIC, Node, Role, Workload
from vllmwall.observe import Observer
from vllmwall.observe.namespaces import inode_of_name
from vllmwall.recognize import recognize


def audit_node(
    config: Config, only: tuple[str, ...], status: Status | None, fail_on: str
) -> AuditAnswer:
    """Audit every workload of this node. ``status`` is the daemon's; None: there is none.

    Raises OSError when a namespace in ``only`` does not exist or /proc cannot be read.
    """
    inodes = frozenset(map(inode_of_name, only))
    node, workloads = _look(config, inodes)
    section, problems = config.audit, []
    sums = None
    if section.checksums is not None:
        try:
            sums = read_checksums(Path(section.checksums))
        except ChecksumError as error:
            problems.append(f"audit.checksums: no weights were checked: {error}")
    views = dict(_views(status)) if status else {}
    found = tuple(subjects(node, workloads, Lookup(views, sums, section.allowed_models)))
    audit = judge(found, section.accepted, date.today())
    return audit_answer(
        replace(audit, problems=(*problems, *audit.problems)),
        host=platform.node(),
        time=time.time(),
        workloads=len(workloads),
        servers=len(found),
        daemon=status is not None,
        fail_on=fail_on,
    )


def _look(config: Config, only: frozenset[int]) -> tuple[Node, list[Workload]]:
    """Observe twice: the second pass reads workloads in more detail."""
    observer, definitions, rows = Observer(only), config.definitions(), config.rows()
    observer.keep(recognize(observer.observe(), definitions, rows))
    node = observer.observe()
    found = within(recognize(node, definitions, rows), node, only)
    return node, list(found.workloads)


def _views(status: Status) -> Iterator[tuple[Spot, DaemonView]]:
    for workload in status.workloads:
        for one in workload.listeners:
            spot = one.namespace, one.proto, one.addr, one.port
            yield spot, DaemonView(Role(one.role), _is_walled(one, status))


def _is_walled(one: ListenerStatus, status: Status) -> bool:
    enforced = status.mode == "enforce" and one.rule == "active"
    return enforced and PUBLIC not in one.audience
