"""Numbers as plots and the report write them: shares in percent, changes in points, with a real minus sign."""

from collections.abc import Sequence
from math import floor, isfinite, log10

from geodtr.runtime.manifest import Ratio


def percent(share: float) -> str:
    """In percent, as in: 89.2."""
    return f"{100 * share:.1f}"


def points(share: float) -> str:
    """+0.20 or −0.45: a change, in points of recall."""
    return signed(f"{100 * share:+.2f}")


def signed(text: str) -> str:
    """A figure whose sign is a minus rather than a hyphen; no sign where it rounds to nothing."""
    return text.lstrip("+-") if not text.strip("+-0.") else text.replace("-", "−")


def cosine(value: float) -> str:
    """0.99214, and of what is nearer to 1 two digits that tell it from 1: 0.9999985. None of what is no number."""
    away = 1 - value
    if not isfinite(value):
        return "none"
    if away < 1e-8:
        return "1"
    return signed(f"{value:.{max(5, 1 - floor(log10(away)))}f}")


def times(ratio: Ratio) -> str:
    """As in: 1.82 × (1.75 to 1.90)."""
    return f"{ratio.median:.2f} × ({ratio.lowest:.2f} to {ratio.highest:.2f})"


def megabytes(size: int) -> str:
    """Bytes as megabytes, as in: 89.2."""
    return f"{size / 1e6:.1f}"


def counted(number: int, one: str, many: str | None = None) -> str:
    """1 query, 2,000 queries."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def listed(words: Sequence[str]) -> str:
    """As in: a, b and c."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def digits(value: float) -> str:
    """Three digits that count: 0.00123, 12.3, 1,230; 6e−08 of what is smaller than that."""
    if not isfinite(value):
        return "∞" if value > 0 else "none"
    if abs(value) >= 100:
        return signed(f"{value:,.0f}")
    return signed(f"{value:.3g}" if abs(value) >= 1e-4 else f"{value:.1g}")


def clipped(name: str, letters: int) -> str:
    """The name where it is short enough, else its beginning and its end; a mark for each character without a shape."""
    name = "".join(letter if letter.isprintable() else "\ufffd" for letter in name)
    half = letters // 2
    return name if len(name) <= letters else f"{name[:half]}…{name[-half + 1 :]}"
