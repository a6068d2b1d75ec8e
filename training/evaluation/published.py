"""Published recall, in percent, for comparison."""

from dataclasses import dataclass

GEODTR = "Zhang et al., AAAI 2023"


@dataclass(frozen=True, slots=True)
class Published:
    """A row of a paper's tables; missing figures are None.

    `trained_on` and `tested_on` are kinds of data sets. `layout_simulation`: training rotated and mirrored pairs
    (GeoDTR's rows: with photometric augmentation as well).
    """

    model: str
    polar: bool
    layout_simulation: bool
    trained_on: str
    tested_on: str
    split: str
    at_1: float
    at_5: float | None = None
    at_10: float | None = None
    at_1_percent: float | None = None
    source: str = GEODTR

    @property
    def queries(self) -> int:
        """The size of the test set, and of its gallery."""
        return QUERIES[self.tested_on, self.split]


QUERIES = {("cvusa", "val"): 8884, ("cvact", "val"): 8884, ("cvact", "test"): 92802}

ROWS = (
    Published("SAFA", True, False, "cvusa", "cvusa", "val", 89.84),
    Published("SAFA", True, True, "cvusa", "cvusa", "val", 88.19),
    Published("L2LTR", True, False, "cvusa", "cvusa", "val", 94.05),
    Published("L2LTR", True, True, "cvusa", "cvusa", "val", 93.62),
    Published("GeoDTR", True, False, "cvusa", "cvusa", "val", 95.23),
    Published("GeoDTR", True, True, "cvusa", "cvusa", "val", 95.43, 98.86, 99.34, 99.86),
    Published("GeoDTR", False, True, "cvusa", "cvusa", "val", 93.76, 98.47, 99.22, 99.85),
    Published("SAFA", True, False, "cvusa", "cvact", "val", 30.40),
    Published("SAFA", True, True, "cvusa", "cvact", "val", 37.15),
    Published("L2LTR", True, False, "cvusa", "cvact", "val", 47.55),
    Published("L2LTR", True, True, "cvusa", "cvact", "val", 52.58),
    Published("GeoDTR", True, False, "cvusa", "cvact", "val", 47.79),
    Published("GeoDTR", True, True, "cvusa", "cvact", "val", 53.16),
    Published("SAFA", True, False, "cvact", "cvact", "val", 81.03),
    Published("SAFA", True, True, "cvact", "cvact", "val", 79.88),
    Published("L2LTR", True, False, "cvact", "cvact", "val", 84.89),
    Published("L2LTR", True, True, "cvact", "cvact", "val", 83.49),
    Published("GeoDTR", True, False, "cvact", "cvact", "val", 87.42),
    Published("GeoDTR", True, True, "cvact", "cvact", "val", 86.21, 95.44, 96.72, 98.77),
    Published("GeoDTR", False, True, "cvact", "cvact", "val", 85.43, 94.81, 96.11, 98.26),
    Published("GeoDTR", True, True, "cvact", "cvact", "test", 64.52, 88.59, 91.96, 98.74),
    Published("GeoDTR", False, True, "cvact", "cvact", "test", 62.96, 87.35, 90.70, 98.61),
    Published("SAFA", True, False, "cvact", "cvusa", "val", 21.45),
    Published("SAFA", True, True, "cvact", "cvusa", "val", 25.42),
    Published("L2LTR", True, False, "cvact", "cvusa", "val", 33.00),
    Published("L2LTR", True, True, "cvact", "cvusa", "val", 37.69),
    Published("GeoDTR", True, False, "cvact", "cvusa", "val", 29.13),
    Published("GeoDTR", True, True, "cvact", "cvusa", "val", 44.07),
)


def published(trained_on: str, tested_on: str, split: str, *, polar: bool) -> tuple[Published, ...]:
    """Published results for these kinds of training and test data, with or without the polar transform."""
    wanted = (trained_on, tested_on, split, polar)
    return tuple(row for row in ROWS if (row.trained_on, row.tested_on, row.split, row.polar) == wanted)
