"""Run one check: python -m gpu.child MODULE RESULT WORK full|dry"""

import sys
from importlib import import_module
from pathlib import Path

from gpu.report import Report, Skipped
from gpu.setting import DRY, FULL, Setting


def main(module: str, result: str, work: str, size: str) -> None:
    report = Report(Path(result))
    try:
        import_module(module).run(report, Setting(Path(work), DRY if size == "dry" else FULL))
    except Skipped as reason:
        report.skip(str(reason))
    else:
        report.end()


if __name__ == "__main__":
    main(*sys.argv[1:])
