"""Tables as objects: the two ways to print them, and the filters that make other tables of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given

from tests.support.strategies import walls
from tests.unit.enforce.nftables.test_ruleset import WALLS
from vllmwall.enforce.backend import AlteredWall
from vllmwall.enforce.nftables import ruleset
from vllmwall.enforce.nftables.names import STAND_IN, TABLE
from vllmwall.enforce.nftables.objects import Chain, Element, Map, Meaning, Rule, Set, Table, script
from vllmwall.enforce.nftables.readback import read_wall
from vllmwall.enforce.nftables.replacement import standing_in
from vllmwall.model import Wall

SMALL = Table(
    "inet t",
    (
        Set("ports", "type inet_service", (Element("1"), Element("2")), size=8),
        Map("m", "typeof th dport", (Element("1", "note", "accept"),), flags=("constant",)),
    ),
    (Chain("input", (Rule("tcp dport @ports jump other"),), "filter"), Chain("other", ())),
    "ours",
)


def test_a_table_is_listed_as_nft_lists_it() -> None:
    """Sets before chains, and what nft prints of each."""
    assert SMALL.listing() == (
        'table inet t {\n\tcomment "ours"\n\n'
        "\tset ports {\n\t\ttype inet_service\n\t\tsize 8\n"
        "\t\telements = { 1,\n\t\t\t     2 }\n\t}\n\n"
        "\tmap m {\n\t\ttypeof th dport : verdict\n\t\tflags constant\n"
        '\t\telements = { 1 comment "note" : accept }\n\t}\n\n'
        "\tchain input {\n\t\ttype filter hook input priority filter; policy accept;\n"
        "\t\ttcp dport @ports jump other\n\t}\n\n\tchain other {\n\t}\n}\n"
    )


def test_commands_name_every_part_chains_first_and_rules_last() -> None:
    """Rules and verdicts may refer to any chain and set."""
    starts = [command.split("\n", 1)[0].split(" {", 1)[0] for command in SMALL.commands()]
    assert starts == [
        "add chain inet t input",
        "add chain inet t other",
        "add set inet t ports",
        "add map inet t m",
        "add rule inet t input tcp dport @ports jump other",
    ]


@pytest.mark.parametrize(("elements", "count"), [((), 0), ((Element("1"), Element("2")), 1)])
def test_elements_are_changed_by_one_command(elements: tuple[Element, ...], count: int) -> None:
    """And none where none change."""
    assert count == len(list(SMALL.change("delete", "ports", elements)))


@given(walls())
def test_a_kernel_without_nft_socket_gets_no_rule_that_needs_it(any_wall: Wall) -> None:
    """One such rule would cost the whole table; the wall reads back all the same."""
    table = ruleset.without_socket_rules(ruleset.table(any_wall))
    text = table.listing()
    assert "\t\tsocket" not in text
    assert "meta sdif 0" not in text
    assert any_wall == read_wall(text, any_wall.namespace, ruleset.without_socket_rules)


def test_a_kernel_with_nft_socket_misses_those_rules() -> None:
    """A table without them is not what this kernel must hold."""
    text = ruleset.without_socket_rules(ruleset.table(WALLS["peers"])).listing()
    assert isinstance(read_wall(text, 7), AlteredWall)


@given(walls())
def test_the_stand_in_is_the_same_wall_behind_ours(any_wall: Wall) -> None:
    """It closes the ports while our table is replaced: only its name and place differ."""
    table = ruleset.table(any_wall)
    ours = table.listing().replace(f"table {TABLE} ", f"table {STAND_IN} ", 1)
    later = ours.replace("priority filter - 10;", "priority filter - 9;", 1)
    assert f"add table {STAND_IN}\ndelete table {STAND_IN}\n{later}" == standing_in(table)


def test_a_replacement_has_a_second_base_chain_until_it_is_settled() -> None:
    """A packet that meets the new table too early and the old one too late meets that chain."""
    text = ruleset.replacing(ruleset.table(WALLS["peers"]))
    assert ["filter - 10", "-450", "filter - 9"] == [
        line.split("priority ")[1].split(";")[0] for line in text.splitlines() if "hook" in line
    ]
    assert "delete chain inet vllmwall late\n" == ruleset.settling()


@given(walls())
def test_every_rule_that_ends_a_packet_has_a_meaning(any_wall: Wall) -> None:
    """Else explain could not give its reason."""
    rules = [rule for chain in ruleset.table(any_wall).chains for rule in chain.rules]
    ending = [one for one in rules if one.text.split()[-1] in ("accept", "drop", "reset")]
    assert [] == [one.text for one in ending if one.meaning is Meaning.NONE]


def test_a_script_is_one_command_a_line() -> None:
    """An empty one is empty text: nothing is sent then."""
    assert ("", "a\nb\n") == (script([]), script(["a", "b"]))


def test_meanings_are_no_part_of_the_text() -> None:
    """What the kernel holds does not depend on them."""
    rule = Rule("accept", Meaning.TRUSTED)
    chain = Chain("c", (rule,))
    bare = replace(chain, rules=(Rule("accept"),))
    assert list(chain.lines()) == list(bare.lines())
