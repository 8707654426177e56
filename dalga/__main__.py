"""The ``dalga`` command, and ``python -m dalga``."""

import signal
import sys


def main() -> int:
    """See `dalga.cli.main`."""
    # Before the imports, which take a moment: there is nothing to be ended in order yet.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from dalga.cli import main as command

    return command()


if __name__ == "__main__":
    sys.exit(main())
