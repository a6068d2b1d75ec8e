"""The container file: hadolint accepts it, and its steps make a system on which the program locates an image."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import dockerfile
import pytest
from checkout import ROOT
from tiny_world import make_world

FILE = ROOT / "containers" / "Dockerfile"
APT = Path("/etc/apt")


def test_hadolint_accepts_it() -> None:
    program = shutil.which("hadolint", path=os.pathsep.join((str(Path(sys.executable).parent), os.defpath)))
    if program is None:
        pytest.skip("hadolint is not installed; the extra dev brings it for Linux on x86-64")
    done = subprocess.run([program, FILE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_its_steps_make_a_system_that_locates_an_image(tmp_path: Path) -> None:
    if shutil.which("debootstrap") is None or os.geteuid() != 0:
        pytest.skip("this needs debootstrap (apt-get install debootstrap) and root")
    base, context = tmp_path / "base", tmp_path / "context"
    subprocess.run(["debootstrap", "--variant=minbase", "bookworm", base], check=True, capture_output=True)
    # As on this machine: how its apt and pip reach their archives.
    shutil.copytree(APT / "apt.conf.d", base / "etc/apt/apt.conf.d", dirs_exist_ok=True)
    names = [name for name in os.environ if name.lower().endswith("_proxy") or name == "PIP_INDEX_URL"]
    network = {name: os.environ[name] for name in names}
    for file in ("/etc/resolv.conf", "/etc/hosts"):
        shutil.copy(file, base / file.lstrip("/"))
    if "PIP_CERT" in os.environ:  # under another name: a package of Debian writes the usual one
        shutil.copy(os.environ["PIP_CERT"], base / "etc" / "pip.pem")
        network["PIP_CERT"] = "/etc/pip.pem"
    subprocess.run(["git", "clone", "--quiet", ROOT, context], check=True)
    image = dockerfile.build(FILE, context, base, tmp_path, network)
    (image.root / "data" / "world").mkdir()
    tiny = make_world(image.root / "data" / "world", 3)
    tiny.photograph(image.root / "data" / "photo.png", 4)
    program = "/opt/geodtr/bin/geodtr-export"
    assert image.run([program, "doctor", "world/bundle"]).returncode == 0
    located = image.run([program, "localize", "photo.png", "--bundle", "world/bundle", "--gallery", "world/gallery"])
    assert located.returncode == 0, located.stderr
    assert "004.png" in located.stdout
    assert image.run([program, "train", "--help"]).returncode == 0
    assert image.run(["test", "-w", "/opt/geodtr"]).returncode == 1
