"""``python -m vllmwall.cli``: the same as the console script."""

from vllmwall.entry import main

main()
