"""The rights of a user who may read a folder and not write it, also where the tests run as root."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NOBODY = 65534


@contextmanager
def not_allowed_to_write(path: Path) -> Iterator[None]:
    """Act as a user who may only read the folder `path`."""
    was = os.geteuid()
    path.chmod(0o555)
    if not was:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(was)
        path.chmod(0o755)
