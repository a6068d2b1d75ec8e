"""How much faster engines are in huge pages: python benchmarks/huge_pages.py BUNDLE...

Where /sys/kernel/mm/transparent_hugepage/enabled is `madvise`, a program has pages of 4 kB unless it asks for others;
glibc 2.35 or newer asks for it with GLIBC_TUNABLES=glibc.malloc.hugetlb=1. Each round opens the bundle in two fresh
processes, with it and without, in turn; both branches count together, batch 8.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median

from geodtr.cli.console import times
from geodtr.runtime.manifest import Ratio
from geodtr.runtime.preflight import ASKS_FOR_HUGE_PAGES

BATCH, ROUNDS, CALLS = 8, 5, 3
ASKING = {"GLIBC_TUNABLES": ASKS_FOR_HUGE_PAGES}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", type=Path, nargs="+")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    print(f"| bundle | pairs/s, 4 kB pages | huge pages | times as fast, {options.rounds} rounds |\n|---|---|---|---|")
    for bundle in options.bundles:
        small, huge = list[float](), list[float]()
        for number in range(options.rounds):
            sides = [(small, dict[str, str]()), (huge, ASKING)]
            for taken, more in sides if number % 2 else sides[::-1]:
                taken.append(pairs_per_second(bundle, more))
        ratios = [fast / slow for fast, slow in zip(huge, small, strict=True)]
        ratio = Ratio(median=median(ratios), lowest=min(ratios), highest=max(ratios))
        print(f"| {bundle.name} | {median(small):.3g} | {median(huge):.3g} | {times(ratio)} |", flush=True)


def pairs_per_second(bundle: Path, more: dict[str, str]) -> float:
    """Of a fresh process of `bench` that has `more` in its environment."""
    numbers = ("--batch", str(BATCH), "--rounds", str(CALLS), "--openings", "0", "--json")
    command = (str(Path(sys.executable).with_name("geodtr-export")), "bench", str(bundle), *numbers)
    environment = {name: value for name, value in os.environ.items() if name not in ASKING} | more
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    seconds: float = sum(1 / row["speed"]["median"] for row in json.loads(done.stdout)["rows"])
    return 1 / seconds


if __name__ == "__main__":
    main()
