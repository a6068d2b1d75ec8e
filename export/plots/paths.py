"""Where pictures may be written."""

from pathlib import Path

from geodtr.runtime.errors import ConfigError
from geodtr.runtime.files import check_new_file


def check_pictures(*paths: Path | None) -> None:
    """Ask before the work, not after; None is a picture that nobody wants.

    Raises ConfigError when a path does not end in .png or is named twice, OutputExists when it is taken.
    """
    wanted = [path for path in paths if path is not None]
    for path in wanted:
        if path.suffix.lower() != ".png":
            raise ConfigError(f"{path} does not end in .png; pictures are written as PNG files.")
        if wanted.count(path) > 1:
            raise ConfigError(f"{path} is named for two pictures; give each a file of its own.")
        check_new_file(path)
