"""Write docs/gpu.md from the results of a GPU machine: python tools/gpu_page.py [gpu.json]

Stores the results as docs/gpu.json. Without an argument, writes the page from the stored results, if any.
"""

import shutil
import sys
from pathlib import Path
from textwrap import fill
from typing import Any

from gpu.checks import CHECKS
from gpu.results import Outcome, Results, read_results

DOCS = Path(__file__).resolve().parents[1] / "docs"
RESULTS, PAGE = DOCS / "gpu.json", DOCS / "gpu.md"
_HOW = """\
# On an NVIDIA GPU

    make gpu-bundle                                          # with a network: .gpu/, in parts of at most 64 MiB
    python3 tools/on_gpu.py --bundle .gpu --out OUT          # there: installs and checks; nine minutes at most
    python tools/gpu_page.py OUT/gpu.json                    # here: writes this page
"""
_WHAT = """
The machine needs Linux on x86-64, Python 3.12 with pip, PyTorch for CUDA 13 with its dependencies, the packages in
tools/gpu/there.txt, and no network. The parts can be copied one by one. Without the parts of tensorrt-rtx or
onnxruntime-gpu, their checks are skipped. Each check runs in its own process with a time limit, and writes every figure
to OUT/gpu.json at once. `--dry-run` tests the checks on a CPU.
"""


def main(*arguments: str) -> None:
    if arguments:
        results = read_results(Path(arguments[0]))
        if results.dry_run:
            raise SystemExit(f"{arguments[0]} is from a dry run: its figures are meaningless.")
        shutil.copyfile(arguments[0], RESULTS)
    PAGE.write_text(page(read_results(RESULTS) if RESULTS.exists() else None))


def page(results: Results | None) -> str:
    """The page; `results` is None before the first run."""
    parts = [_HOW, _paragraph(_WHAT)]
    if results is None:
        parts += ["**Not yet run on a GPU.** The checks are:\n"]
        parts += ["\n".join(f"- {check.title}" for check in CHECKS) + "\n"]
        return "\n".join(parts)
    machine = ", ".join(f"{name} {value}" for name, value in results.machine.items())
    parts.append(_paragraph(f"Run on {results.date}. {machine}.{''.join(f' {note}.' for note in results.notes)}"))
    parts.append(_table([{"check": each.title, "": each.status, "seconds": each.seconds} for each in results.outcomes]))
    parts += [_section(outcome) for outcome in results.outcomes]
    return "\n".join(parts)


def _section(outcome: Outcome) -> str:
    parts = [f"## {outcome.title}: {outcome.status}\n"]
    if outcome.message:
        parts.append(_paragraph(outcome.message))
    if outcome.facts:
        parts.append(_table([{"": name, "value": value} for name, value in outcome.facts.items()]))
    for name, rows in outcome.tables.items():
        parts += [f"{name}:\n", _table(rows)]
    return "\n".join(parts)


def _table(rows: list[dict[str, Any]]) -> str:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    lines += [f"| {' | '.join(_cell(row.get(name)) for name in columns)} |" for row in rows]
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        near_one = 0.99 < abs(value) < 1  # a cosine: the difference from 1 matters
        return f"{value:.7f}" if near_one else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return " ".join(str(value).split()).replace("|", "\\|")


def _paragraph(text: str) -> str:
    return fill(" ".join(text.split()), 120, break_long_words=False, break_on_hyphens=False) + "\n"


if __name__ == "__main__":
    main(*sys.argv[1:])
