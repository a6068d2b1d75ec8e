"""Runs a Dockerfile's steps in a folder with a Debian system: a stand-in for Docker where no engine runs.

It knows FROM, ARG, RUN, COPY, WORKDIR, ENV and USER, as far as this project's file uses them.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_KNOWN = {"ARG", "FROM", "RUN", "COPY", "WORKDIR", "ENV", "USER", "ENTRYPOINT", "CMD"}


@dataclass
class Stage:
    """A stage while it is built: its file system, and what its steps see."""

    root: Path
    workdir: str = "/"
    user: str = "root"
    environment: dict[str, str] = field(default_factory=dict)

    def run(self, command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
        """Run a command in this file system as the user of this stage."""
        environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", **self.environment}
        prefix = ["chroot", f"--userspec={self.user}", str(self.root), "/bin/sh", "-ec", 'cd "$0" && exec "$@"']
        line = [*prefix, self.workdir, *command]
        return subprocess.run(line, env=environment, capture_output=True, text=True, check=False)


def build(dockerfile: Path, context: Path, base: Path, work: Path, network: Mapping[str, str]) -> Stage:
    """Run all steps; each stage begins as a copy of `base`. `network` are variables by which pip finds packages."""
    assert {name for name, _ in instructions(dockerfile)} <= _KNOWN
    stages, arguments, stage = dict[str, Stage](), dict[str, str](), None
    for number, (name, rest) in enumerate(instructions(dockerfile)):
        value = re.sub(r"\$\{(\w+)\}", lambda match: arguments[match[1]], rest) if name in ("FROM", "COPY") else rest
        if name == "ARG":
            key, _, default = rest.partition("=")
            arguments[key] = default
            if stage is not None:
                stage.environment[key] = default
            continue
        if name == "FROM":
            stage = Stage(work / f"stage-{number}", environment=dict(network))
            subprocess.run(["cp", "--archive", base, stage.root], check=True)
            stages[value.split()[-1]] = stage
        assert stage is not None, f"{name} before FROM"
        if name == "RUN":
            done = stage.run(["/bin/sh", "-c", rest])
            if done.returncode:
                raise RuntimeError(f"{rest}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
        elif name == "COPY":
            _copy(value.split(), stage, stages, context)
        elif name == "WORKDIR":
            stage.workdir = rest
            (stage.root / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
        elif name == "ENV":
            stage.environment.update({key: text for key, _, text in (part.partition("=") for part in rest.split())})
        elif name == "USER":
            stage.user = rest
    assert stage is not None
    return stage


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile and their arguments, without comments."""
    lines = [line for line in dockerfile.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(first, rest) for first, _, rest in (line.partition(" ") for line in joined.splitlines() if line.strip())]


def _copy(words: Sequence[str], stage: Stage, stages: Mapping[str, Stage], context: Path) -> None:
    if words[0].startswith("--from="):
        source = stages[words[0].removeprefix("--from=")].root / words[1].lstrip("/")
    else:
        source = context / words[0]
    target = stage.root / os.path.join(stage.workdir, words[-1]).lstrip("/")  # noqa: PTH118, it is another root's path
    shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)
