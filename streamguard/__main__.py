"""``python -m streamguard`` is the command line."""

from __future__ import annotations

from streamguard.cli import main

if __name__ == "__main__":
    main(prog_name="streamguard")
