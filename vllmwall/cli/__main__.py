"""``python -m vllmwall.cli``: the same as the console script."""

from vllmwall.cli import main

main()
