"""The installed program as a process of its own: `run` for what it prints, `localize` for a command line."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tiny_world import TinyWorld

PROGRAM = str(Path(sys.executable).with_name("geodtr-export"))


def run(*arguments: object, code: int = 2, **how: Any) -> str:
    """Run the command; its exit code is `code`. Returns what it printed, which is no traceback."""
    environment = {**os.environ, **how.pop("env", {})}
    how.setdefault("stdout", subprocess.PIPE)
    how.setdefault("stderr", subprocess.PIPE)
    done = subprocess.run([PROGRAM, *map(str, arguments)], env=environment, check=False, timeout=120, **how)
    message = ((done.stdout or b"") + (done.stderr or b"")).decode(errors="replace")
    assert "Traceback" not in message
    assert "Exception ignored" not in message
    assert done.returncode == code, message
    return message


def localize(tiny: TinyWorld, *more: object) -> tuple[object, ...]:
    return ("localize", *more, "--bundle", tiny.bundle, "--gallery", tiny.gallery)
