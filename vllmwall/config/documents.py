"""The sample file and the reference page, written from the models so that they cannot lie.

packaging/vllmwall.toml and docs/reference/config.md are what these functions return; a test
fails when they are not. ``python -m vllmwall.config sample|reference`` prints them.
"""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import wrap

from pydantic.fields import FieldInfo

from vllmwall.config.models import Config, MatchSection, WorkloadSection
from vllmwall.config.section import Section
from vllmwall.config.toml import toml_value
from vllmwall.config.values import ROLE_NAMES
from vllmwall.config.wording import keys_of
from vllmwall.model import BUILT_IN_AUDIENCES

_SAMPLE_HEAD = """\
# vllmwall: what is not set here has a safe default; an empty file is a working configuration.
# `vllmwall check` says what is wrong with it, `vllmwall reload` takes it over.
# More files: conf.d/*.toml beside this one, in the order of their names. There, lists add to
# what was said before; single values and audiences replace it.
"""

_REFERENCE_HEAD = """\
# Configuration

<!-- Written by `python -m vllmwall.config reference`; edit vllmwall/config/models.py instead. -->

vllmwall reads `/etc/vllmwall/vllmwall.toml`, then `/etc/vllmwall/conf.d/*.toml` in the order of
their names. Neither has to be there: an empty configuration is a working one.

- Tables merge. Lists concatenate, `[[workload]]` too. Of a single value, the last file's counts.
  An audience in `[policy]` is a single value even when it is written as a list, so that a later
  file can also narrow it.
- The files and their directories must belong to root and be writable by nobody else: who writes
  them decides who gets in.
- An unknown key is an error, and so is a value that would do nothing. `vllmwall check` shows all
  problems at once, with file, line, key and what is allowed. A configuration with a problem is
  not taken over: what is in force stays.
"""


def sample_toml() -> str:
    """A commented file in which every key stands, commented out, with an example."""
    lines = _SAMPLE_HEAD.splitlines()
    for key, name in keys_of(Config).items():
        lines += ["", *_sample_part(key, name)]
    return "\n".join(lines) + "\n"


def reference_markdown() -> str:
    """The reference page."""
    lines = [*_REFERENCE_HEAD.splitlines(), "", "## Top level", ""]
    lines += _table({"mode": Config.model_fields["mode"]})
    for key, name in keys_of(Config).items():
        if key != "mode":
            lines += ["", *_reference_part(key, name)]
    return "\n".join(lines) + "\n"


def _sample_part(key: str, name: str) -> Iterator[str]:
    field = Config.model_fields[name]
    if key == "workload":
        yield from _comment(_purpose(WorkloadSection))
        yield "#[[workload]]"
        yield from _sample_keys(WorkloadSection)
    elif isinstance(field.annotation, type) and issubclass(field.annotation, Section):
        yield from _comment(_purpose(field.annotation))
        yield f"[{key}]"
        yield from _sample_keys(field.annotation)
    elif field.examples and isinstance(field.examples[0], dict):
        yield from _comment(field.description or "")
        yield f"[{key}]"
        yield from (f"#{k} = {toml_value(v)}" for k, v in field.examples[0].items())
    else:
        yield from _sample_key(key, field)


def _sample_keys(section: type[Section]) -> Iterator[str]:
    for key, field in section.model_fields.items():
        yield from _sample_key(key, field)


def _sample_key(key: str, field: FieldInfo) -> Iterator[str]:
    yield from _comment(f"{field.description} ({field.title})")
    yield f"#{key} = {_example(field)}"


def _comment(text: str) -> Iterator[str]:
    return (f"# {line}" for line in wrap(text, 94))


def _purpose(section: type[Section]) -> str:
    return " ".join((section.__doc__ or "").split())


def _example(field: FieldInfo) -> str:
    return toml_value(field.examples[0]) if field.examples else _default(field)


def _default(field: FieldInfo) -> str:
    """The default as TOML; "" where the key must be given, or stays out."""
    default = field.get_default()
    if field.is_required() or default is None:
        return ""
    return toml_value(list(default) if isinstance(default, tuple) else _plain(default))


def _plain(default: object) -> object:
    return getattr(default, "value", default)  # an enum's text


def _reference_part(key: str, name: str) -> Iterator[str]:
    field = Config.model_fields[name]
    if key == "workload":
        yield from (f"## `[[{key}]]`", "", _purpose(WorkloadSection), "")
        yield from _table(WorkloadSection.model_fields)
        yield from ("", "### `match`", "", _purpose(MatchSection), "")
        yield from _table(MatchSection.model_fields)
    elif isinstance(field.annotation, type) and issubclass(field.annotation, Section):
        yield from (f"## `[{key}]`", "", _purpose(field.annotation), "")
        yield from _table(field.annotation.model_fields)
    else:
        yield from (f"## `[{key}]`", "", field.description or "", "")
        yield from ("```toml", f"[{key}]")
        yield from (f"{k} = {toml_value(v)}" for k, v in (field.examples or [{}])[0].items())
        yield "```"
        yield from _policy_words() if key == "policy" else ()


def _policy_words() -> Iterator[str]:
    yield from ("", f"Audiences: {_code(BUILT_IN_AUDIENCES)}, and the groups of `[groups]`.")
    yield from ("", f"Roles: {_code(ROLE_NAMES)}.")
    yield from ("", 'Without this table, `api` is `"public"` and `default` is `"peers"`.')


def _code(words: tuple[str, ...]) -> str:
    return ", ".join(f"`{word}`" for word in words)


def _table(fields: dict[str, FieldInfo]) -> Iterator[str]:
    yield from ("| key | value | default | meaning |", "|---|---|---|---|")
    for key, field in fields.items():
        default = _default(field)
        shown = f"`{default}`" if default else "required" if field.is_required() else "none"
        yield f"| `{key}` | {field.title} | {shown} | {field.description} |"
