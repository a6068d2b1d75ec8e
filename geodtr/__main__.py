"""Where `geodtr-export` and `python -m geodtr` begin."""

import signal


def main() -> None:
    """The command line. Until it has its own handlers, a signal ends the process without Python's traceback."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from geodtr.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
