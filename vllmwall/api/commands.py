"""What the daemon answers on its control socket, one function a command."""

from __future__ import annotations

import platform
import pwd
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from vllmwall import __version__
from vllmwall.api.change_shapes import CHANGES_VERSION
from vllmwall.api.plan import plan_json
from vllmwall.api.questions import COMMANDS
from vllmwall.api.server import ControlError, Json
from vllmwall.api.status import status_json
from vllmwall.cidr import parse_network
from vllmwall.config import DROP_INS, ConfigError
from vllmwall.config.reading import Reading
from vllmwall.enforce.backend import EnforceError
from vllmwall.engine.event_keys import EventKey
from vllmwall.engine.facts import NamespaceFacts, StatusFacts
from vllmwall.model import Network
from vllmwall.networks import PeerError, PeerList

if TYPE_CHECKING:
    from vllmwall.daemon.loop import Daemon


class Answers:
    """Turns requests into results. Raises ControlError for what cannot be done."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._commands: Mapping[str, Callable[[Json], Json]] = {
            "status": self._status,
            "plan": self._plan,
            "reload": self._reload,
            "up": self._up,
            "down": self._down,
            "peers.list": self._list_peers,
            "peers.add": self._add_peers,
            "peers.remove": self._remove_peers,
            "snapshot": self._snapshot,
            "guard": self._guard,
            **{name: partial(question, daemon) for name, question in COMMANDS.items()},
        }

    def answer(self, command: str, arguments: Json) -> Json:
        """The result of one request."""
        try:
            return self._commands[command](arguments)
        except ControlError:
            raise
        except (OSError, EnforceError) as error:
            raise ControlError("failed", f"{command}: {error}") from error
        except Exception as error:  # a question must not end the daemon
            self._daemon.log(EventKey.REQUEST_FAILED, command=command, exc_info=True)
            raise ControlError("failed", f"{command}: internal error: {error!r}") from error

    def _facts(self) -> StatusFacts:
        daemon = self._daemon
        problems = [one for one in (daemon.pass_error, daemon.save_error) if one]
        problems += [f"metrics: {one}" for one in daemon.metrics.errors.values()]
        facts = daemon.keeper.status(time.time(), problems)
        uids = {workload.uid for workload in facts.recognition.workloads}
        config = replace(facts.config, loaded=daemon.config_loaded, problems=daemon.config_problems)
        return replace(
            facts,
            daemon=daemon.facts(),
            config=config,
            users={uid: _user(uid) for uid in uids},
        )

    def _status(self, _: Json) -> Json:
        return status_json(self._facts())

    def _plan(self, arguments: Json) -> Json:
        """Of the configuration as it is on disk: the question comes before `reload`."""
        keeper = self._daemon.keeper
        spaces = self._wanted_on_disk()
        problems = ["the walls are down on request: this is what `vllmwall up` would do"]
        problems = problems if keeper.down else []
        from vllmwall.api.lockout_question import would_lock_out

        if why := would_lock_out(arguments, spaces, keeper.observer.namespaces.own):
            problems.append(why)
        return plan_json(spaces, problems)

    def _wanted_on_disk(self) -> tuple[NamespaceFacts, ...]:
        daemon = self._daemon
        options = daemon.options
        try:
            config = Reading(options.config).settings()
        except ConfigError as error:
            raise ControlError("failed", f"{error}\nThe configuration in force stays.") from error
        peers = PeerList(config.peers, options.runtime_dir, options.config.parent / DROP_INS)
        return daemon.keeper.plan(config, peers.networks())

    def _reload(self, arguments: Json) -> Json:
        before = self._daemon.keeper.config
        if arguments.get("ssh"):
            from vllmwall.api.lockout_question import refuse_lockout

            own = self._daemon.keeper.observer.namespaces.own
            refuse_lockout(arguments, self._wanted_on_disk(), own)
        try:
            self._daemon.reload()
            if arguments.get("unconfirmed"):
                self._daemon.on_trial = self._daemon.on_trial or before
        except ConfigError as error:
            raise ControlError("failed", f"{error}\nThe configuration in force stays.") from error
        return self._status({})

    def _up(self, arguments: Json) -> Json:
        keeper = self._daemon.keeper
        if arguments.get("ssh"):
            from vllmwall.api.lockout_question import refuse_lockout

            spaces = keeper.plan(keeper.config, keeper.peers.networks())
            refuse_lockout(arguments, spaces, keeper.observer.namespaces.own)
        self._daemon.set_down(is_down=False)
        return self._status({})

    def _down(self, _: Json) -> Json:
        removed = self._daemon.set_down(is_down=True)
        return {"version": CHANGES_VERSION, "removed": removed}

    def _guard(self, arguments: Json) -> Json:
        """The asker's own cgroup, before it starts a job in it."""
        pid = arguments.get("pid")
        keeper = self._daemon.keeper
        asked = keeper.guard(pid if isinstance(pid, int) else 0)
        return {
            "guarded": not asked.why_not,
            "why": asked.why_not,
            "namespace": keeper.observer.namespaces.name(asked.namespace),
            "cgroup": asked.cgroup,
        }

    def _list_peers(self, _: Json) -> Json:
        return {"peers": {"version": CHANGES_VERSION, **status_json(self._facts())["peers"]}}

    def _add_peers(self, arguments: Json) -> Json:
        peers = self._daemon.keeper.peers
        seconds = arguments.get("seconds")
        if arguments.get("save"):
            return self._change_peers(arguments, peers.save)
        expires = peers.now() + seconds if isinstance(seconds, int | float) else None
        return self._change_peers(arguments, lambda networks: peers.add(networks, expires))

    def _remove_peers(self, arguments: Json) -> Json:
        peers = self._daemon.keeper.peers
        return self._change_peers(
            arguments, peers.forget if arguments.get("save") else peers.remove
        )

    def _change_peers(self, arguments: Json, change: Callable[[tuple[Network, ...]], None]) -> Json:
        try:
            change(_networks(arguments.get("networks")))
        except (PeerError, ValueError) as error:
            raise ControlError("failed", str(error)) from error
        self._daemon.full_pass("peers changed")
        return self._list_peers({})

    def _snapshot(self, _: Json) -> Json:
        from vllmwall.observe.snapshot import dump

        return {
            "snapshot": dump(
                self._daemon.keeper.observer.observe(),
                host_facts={"kernel": platform.release(), "version": __version__},
            )
        }


def _networks(value: object) -> tuple[Network, ...]:
    if not isinstance(value, list) or not value:
        raise ControlError("bad-request", "networks: a list of CIDRs is needed")
    return tuple(parse_network(str(text)) for text in value)


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
