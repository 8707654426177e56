"""``python -m dalga`` is the ``dalga`` command."""

import sys

from dalga.cli import main

if __name__ == "__main__":
    sys.exit(main())
