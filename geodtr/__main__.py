"""Where `geodtr-export` and `python -m geodtr` begin."""

import os
import signal
import sys


def main() -> None:
    """The command line. Until it has its own handlers, a signal ends the process without Python's traceback.

    Documents and lists are UTF-8: in a locale of another encoding, such as ISO-8859-1, the names in them would differ
    from those on the disk. Python's UTF-8 mode can only be chosen at the start of a process.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.getfilesystemencoding() != "utf-8" and "PYTHONUTF8" not in os.environ:
        os.execve(sys.executable, sys.orig_argv, {**os.environ, "PYTHONUTF8": "1"})
    from geodtr.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
