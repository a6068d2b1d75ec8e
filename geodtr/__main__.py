"""`python -m geodtr`: the command line, for environments whose programs are not on the path."""

from geodtr.cli.main import main

if __name__ == "__main__":
    main()
