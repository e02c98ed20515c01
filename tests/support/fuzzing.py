"""Input that is changed at random, from a seed that a failure names, for as long as is wished.

``VLLMWALL_FUZZ_SECONDS`` is the time of each fuzzer: CI gives each eight, `make test` two
seconds. Documents that once broke something are kept in tests/unit/fuzz/corpus and come first.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from random import Random

CORPUS = Path(__file__).parents[1] / "unit/fuzz/corpus"
SECONDS = float(os.environ.get("VLLMWALL_FUZZ_SECONDS", "2"))
SLOWEST = 10.0  # seconds for one input
JUNK: tuple[object, ...] = (
    *(None, True, -1, 0, 1.5, 10**30, 2**64, -5, float("nan"), float("inf")),
    *("", "x", "\ud800", "\x1b[2J", "9" * 5000, "\u00b2", "fe80::1%eth0", "::" * 50, "\0", "\n"),
    *([], [1], [None], [[]], {}, {"a": 1}, {"": {}}),
)


def seeds() -> Iterator[int]:
    """Numbers for `Random` until the time is over; not less than twenty."""
    end = time.monotonic() + SECONDS
    first = int(os.environ.get("VLLMWALL_FUZZ_SEED", "0")) or int(time.time())
    number = 0
    while number < 20 or time.monotonic() < end:
        yield first + number
        number += 1


def mutated(document: object, random: Random) -> object:
    """A copy of a JSON document with one to five of its values replaced by junk."""
    found = json.loads(json.dumps(document))
    places = list(_places(found))
    for _ in range(random.choice((1, 1, 1, 2, 5))):
        *way, last = random.choice(places)
        at = found
        try:
            for key in way:
                at = at[key]
            at[last] = deepcopy(random.choice(JUNK))
        except (KeyError, TypeError, IndexError):  # an earlier change took the place away
            continue
    return found


def garbled(data: bytes, random: Random) -> bytes:
    """The same bytes with some of them changed, cut out, repeated or put in."""
    found = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 8))):
        at = random.randrange(len(found) + 1)
        step = random.randrange(4)
        if step == 0:
            found[at : at + 1] = bytes([random.randrange(256)])
        elif step == 1:
            del found[at : at + random.choice((1, 4, 64))]
        elif step == 2:
            found[at:at] = random.randbytes(random.choice((1, 4, 64)))
        else:
            found[at:at] = found[at : at + random.choice((4, 64))]
    return bytes(found)


def checked(what: str, work: Callable[[], object], errors: tuple[type[Exception], ...]) -> None:
    """``work`` ends, soon, or in one of ``errors`` with one clear message. ``what`` names the
    input, so that it can be tried again."""
    begun = time.monotonic()
    try:
        work()
    except errors as error:
        assert str(error), f"{what}: an error without words"
    except Exception as error:
        raise AssertionError(f"{what}: {error!r}") from error
    assert time.monotonic() - begun < SLOWEST, f"{what}: too slow"


def _places(value: object, way: tuple[object, ...] = ()) -> Iterator[tuple[object, ...]]:
    """The way to each value but the document itself."""
    if way:
        yield way
    if isinstance(value, dict):
        for key, one in value.items():
            yield from _places(one, (*way, key))
    elif isinstance(value, list):
        for number, one in enumerate(value[:6]):
            yield from _places(one, (*way, number))
