"""Parity: is an engine as good as the PyTorch model? Measured on pairs, judged with how sure the pairs allow to be."""

from geodtr.export.parity.comparison import compare
from geodtr.export.parity.gates import Gates
from geodtr.export.parity.record import record
from geodtr.export.parity.result import ParityResult
