"""``python -m vllmwall.config sample|reference``: print what is generated from the models."""

from __future__ import annotations

import sys

from vllmwall.config.documents import reference_markdown, sample_toml

DOCUMENTS = {"sample": sample_toml, "reference": reference_markdown}


def main(arguments: list[str]) -> int:
    """Print the document that the only argument names. Returns 2 for any other arguments."""
    if len(arguments) != 1 or arguments[0] not in DOCUMENTS:
        sys.stderr.write(f"usage: python -m vllmwall.config {'|'.join(DOCUMENTS)}\n")
        return 2
    sys.stdout.write(DOCUMENTS[arguments[0]]())
    return 0


if __name__ == "__main__":  # pragma: no cover (a test starts it as a process)
    sys.exit(main(sys.argv[1:]))
