"""The colours of all pictures: matplotlib's plots, the sheets that Pillow puts together, the report's page."""

from dataclasses import dataclass

_COLOURS = {
    "paper": ("#ffffff", "#14181d"),
    "soft": ("#f4f6f8", "#1d232a"),
    "edge": ("#d5dae0", "#38414b"),
    "faint": ("#57606a", "#a3adb7"),
    "ink": ("#1b1f24", "#e8ebee"),
    "good": ("#12703f", "#5fd394"),
    "bad": ("#b3261e", "#ff8a80"),
    "open": ("#8a5a00", "#f0bf5a"),
    "allowed": ("#dff1e6", "#1b3a2a"),
    "s0": ("#3b4148", "#d0d5da"),
    "s1": ("#0b6fb8", "#62b5f2"),
    "s2": ("#c4541a", "#f2945f"),
    "s3": ("#7d3fb0", "#c59af2"),
    "s4": ("#0d7d6c", "#53cdb8"),
    "s5": ("#8f6a00", "#dcb648"),
    "s6": ("#b8336a", "#f286b3"),
    "s7": ("#4a5bd0", "#98a5ff"),
}
"""On paper, and on a dark screen. All but `soft`, `edge` and `allowed` stand out as text, by 4.5 to 1 (WCAG AA)."""
LIGHT = {name: light for name, (light, _) in _COLOURS.items()}
_DASHES = {"s2": (8.0, 3.0), "s3": (3.0, 2.0), "s4": (10.0, 3.0, 2.0, 3.0)}


@dataclass(frozen=True, slots=True)
class Series:
    """One of several curves: its name in the palettes, and lengths of its dashes and gaps, none for a solid line."""

    name: str
    dashes: tuple[float, ...] = ()

    @property
    def colour(self) -> str:
        """On paper."""
        return LIGHT[self.name]

    @property
    def line(self) -> "str | tuple[int, tuple[float, ...]]":
        """Its dashes as matplotlib wants them."""
        return (0, self.dashes) if self.dashes else "-"


REFERENCE = Series("s0")


def series(number: int) -> Series:
    """The look of curve `number`, counted from 0; the eighth looks like the first."""
    name = f"s{1 + number % 7}"
    return Series(name, _DASHES.get(name, ()))


def css_variables() -> str:
    """A style sheet's variables, --ink and so on: the dark palette on a screen that asks for it."""
    light, dark = (
        ":root { " + " ".join(f"--{name}: {colours[which]};" for name, colours in _COLOURS.items()) + " }"
        for which in (0, 1)
    )
    return f"{light}\n@media screen and (prefers-color-scheme: dark) {{ {dark} }}\n"
