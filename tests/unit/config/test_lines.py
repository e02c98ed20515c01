"""Lines of keys: whatever way TOML allows to write them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vllmwall.config.lines import line_of, lines_of
from vllmwall.config.toml import loads, toml_value

TEXT = '''\
# a comment with [brackets] = "and strings
mode = "audit" # another
title = """
several [lines]
with "quotes" and a \\""""
path = \'\'\'
raw # text
\'\'\'
when = 1979-05-27 07:32:00
half = 1.5
[peers]
cidrs = [ # the first
  "10.0.0.0/24", 'x#y',

  # nothing
  [1, [2,
    3]],
]
"quoted key" = 1
dotted . "key\\u0041".deep = { a = 1, b = { c = [1, 2] } }
[[workload]]
name = "one"
[workload.match]
unit = "x"
[[workload]]
name = "two"
[[workload.inner]]
k = 1
[[workload.inner]]
k = 2
'''


def test_every_way_to_write_a_key_has_its_line() -> None:
    """Tables, lists of tables, inline tables, dotted and quoted keys, lists over many lines."""
    loads(TEXT)
    lines = lines_of(TEXT)
    assert lines[("mode",)] == 2
    assert lines[("title",)] == 3
    assert lines[("path",)] == 6
    assert lines[("when",)] == 9
    assert lines[("half",)] == 10
    assert lines[("peers",)] == 11
    assert lines[("peers", "cidrs", 0)] == 13
    assert lines[("peers", "cidrs", 1)] == 13
    assert lines[("peers", "cidrs", 2)] == 16
    assert lines[("peers", "cidrs", 2, 1, 1)] == 17
    assert lines[("peers", "quoted key")] == 19
    assert lines[("peers", "dotted", "keyA", "deep", "b", "c", 1)] == 20
    assert lines[("workload", 0, "name")] == 22
    assert lines[("workload", 0, "match", "unit")] == 24
    assert lines[("workload", 1)] == 25
    assert lines[("workload", 1, "inner", 1, "k")] == 30


def test_a_missing_key_has_the_line_of_what_should_hold_it() -> None:
    """An error about what is not there points to the table."""
    lines = lines_of(TEXT)
    assert line_of(lines, ("workload", 1, "match")) == 25
    assert line_of(lines, ("nothing", "here")) is None


VALUES = st.recursive(
    st.integers(-9, 9) | st.booleans() | st.text("a#'[\"=]{,é\\\n", max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "b-c", '"d.e"', "'f#'"]), inner, max_size=2)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["x", '"y z"', "a.b", "c"]), VALUES, max_size=4))
def test_any_text_is_walked_to_its_end(tree: dict[str, object]) -> None:
    """Whatever the values are, every key is found in the line that it was written in."""
    text = "".join(f"# no\n{key} = {toml_value(value)}\n" for key, value in tree.items())
    keys = [tuple(key.strip('"').split(".")) for key in tree]
    loads(text)
    lines = lines_of(text)
    assert [lines[key] for key in keys] == [2 * number for number in range(1, len(keys) + 1)]
