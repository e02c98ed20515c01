"""The corpus of this version: run once a release, with `python -m tests.upgrade`."""

from tests.upgrade.corpus import record

if __name__ == "__main__":
    print(f"written: {record()}")
