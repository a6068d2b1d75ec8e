"""Parity: is an engine as good as the PyTorch model? Measured on pairs, judged by the drop in R@1."""

from geodtr.export.parity.measured import ParityReport, allowed_lost, compare, record

__all__ = ["ParityReport", "allowed_lost", "compare", "record"]
