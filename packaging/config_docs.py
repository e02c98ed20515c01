"""The sample file and the reference page of the configuration: ``python packaging/config_docs.py``.

Writes packaging/vllmwall.toml and docs/reference/config.md from the models and `keys.toml`; a test
fails when they are out of date.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from textwrap import wrap

from vllmwall.config.models import Config
from vllmwall.config.schema import Words, words_of
from vllmwall.config.sections import Section
from vllmwall.config.toml import toml_value
from vllmwall.config.values import ROLE_NAMES
from vllmwall.config.wording import keys_of, section_of
from vllmwall.model import BUILT_IN_AUDIENCES

_SAMPLE_HEAD = """\
# vllmwall: every key has a safe default; an empty file is a working configuration.
# `vllmwall check` reports errors, `vllmwall reload` activates changes.
# Files in conf.d/*.toml beside this one are merged in the order of their names: lists are
# concatenated; single values and audiences replace earlier ones.
"""

_REFERENCE_HEAD = """\
# Configuration

<!-- Written by `make docs`; edit vllmwall/config/keys.toml instead. -->

vllmwall reads `/etc/vllmwall/vllmwall.toml`, then `/etc/vllmwall/conf.d/*.toml` in the order of
their names. Neither has to exist: an empty configuration works.

- Tables are merged and lists are concatenated, `[[workload]]` too. Of a single value the last one
  counts. An audience in `[policy]` is a single value even if it is a list, so that a later file can
  also restrict it.
- The files and their directories must belong to root and be writable by root only, because they
  decide who may connect.
- An unknown key is an error, and so is a value without effect. `vllmwall check` reports all
  problems at once, with file, line, key and the allowed values. An invalid configuration is not
  activated: the previous one stays in force.
- `vllmwall config schema` prints a JSON schema of one file, with which editors complete and check
  keys.
"""


_ARRAYS = ("workload", "program", "api")
ROOT = Path(__file__).parents[1]


def sample_toml() -> str:
    """packaging/vllmwall.toml: every key, commented out, with an example and its description."""
    lines = _SAMPLE_HEAD.splitlines()
    for key, name in keys_of(Config).items():
        lines += ["", *_sample_part(key, section_of(Config.model_fields[name]))]
    return "\n".join(lines) + "\n"


def reference_markdown() -> str:
    """docs/reference/config.md."""
    lines = [*_REFERENCE_HEAD.splitlines(), "", "## Top level", ""]
    lines += _table(Config, {"mode": words_of()["mode"]})
    for key, name in keys_of(Config).items():
        if key != "mode":
            lines += ["", *_reference_part(key, section_of(Config.model_fields[name]))]
    return "\n".join(lines) + "\n"


def _sample_part(key: str, section: type[Section] | None) -> Iterator[str]:
    if section:
        yield from _comment(_purpose(section))
        yield f"#[[{key}]]" if key in _ARRAYS else f"[{key}]"
        for inner, words in words_of(key).items():
            yield from _sample_key(section, inner, words)
        return
    words = words_of()[key]
    if isinstance(words.example, dict):
        yield from _comment(words.meaning)
        yield f"[{key}]"
        yield from (f"#{k} = {toml_value(v)}" for k, v in words.example.items())
    else:
        yield from _sample_key(Config, key, words)


def _sample_key(section: type[Section], key: str, words: Words) -> Iterator[str]:
    yield from _comment(f"{words.meaning} ({words.value})")
    has_example = words.example is not None
    yield f"#{key} = {toml_value(words.example) if has_example else _default(section, key)}"


def _comment(text: str) -> Iterator[str]:
    return (f"# {line}" for line in wrap(text, 94))


def _purpose(section: type[Section]) -> str:
    return " ".join((section.__doc__ or "").split())


def _default(section: type[Section], key: str) -> str:
    """The default as TOML; "" where the key is required or has none."""
    field = section.model_fields[key]
    default = field.get_default()
    if field.is_required() or default is None:
        return ""
    plain = getattr(default, "value", default)  # of an enum
    return toml_value(list(plain) if isinstance(plain, tuple) else plain)


def _reference_part(key: str, section: type[Section] | None) -> Iterator[str]:
    if section:
        yield from (f"## `[[{key}]]`" if key in _ARRAYS else f"## `[{key}]`", "")
        yield from (_purpose(section), "", *_table(section, words_of(key)))
        for name, field in section.model_fields.items():
            if inner := section_of(field):
                yield from ("", f"### `{key}.{name}`", "", _purpose(inner), "")
                yield from _table(inner, words_of(f"{key}.{name}"))
        return
    words = words_of()[key]
    example = words.example if isinstance(words.example, dict) else {}
    yield from (f"## `[{key}]`", "", words.meaning, "", "```toml", f"[{key}]")
    yield from (f"{k} = {toml_value(v)}" for k, v in example.items())
    yield "```"
    yield from _policy_words() if key == "policy" else ()


def _policy_words() -> Iterator[str]:
    yield from ("", f"Audiences: {_code(BUILT_IN_AUDIENCES)}, and the groups of `[groups]`.")
    yield from ("", f"Roles: {_code(ROLE_NAMES)}.")
    yield from ("", 'Without this table, `api` is `"public"` and `default` is `"peers"`.')


def _code(words: tuple[str, ...]) -> str:
    return ", ".join(f"`{word}`" for word in words)


def _table(section: type[Section], keys: dict[str, Words]) -> Iterator[str]:
    yield from ("| key | value | default | meaning |", "|---|---|---|---|")
    for key, words in keys.items():
        default, is_required = _default(section, key), section.model_fields[key].is_required()
        shown = f"`{default}`" if default else "required" if is_required else "none"
        yield f"| `{key}` | {words.value} | {shown} | {words.meaning} |"


if __name__ == "__main__":
    (ROOT / "packaging" / "vllmwall.toml").write_text(sample_toml())
    (ROOT / "docs" / "reference" / "config.md").write_text(reference_markdown())
