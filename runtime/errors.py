"""Errors that a user can correct: each message names the wrong value, the allowed values and the remedy.

The command line prints a `UserError` without a traceback and exits with 2. Anything else is a bug and keeps its
traceback.
"""

from collections.abc import Callable


class UserError(Exception):
    """Base of every error that the user can correct. A command exits with `exit_code`.

    Examples
    --------
    >>> from geodtr import UserError, open_bundle
    >>> try:
    ...     open_bundle("nowhere")
    ... except UserError as error:
    ...     print(type(error).__name__)
    BundleError
    """

    exit_code = 2


class ImageError(UserError):
    """An image is missing, truncated, not an image, or of a size that its branch cannot take."""


class DataError(UserError):
    """A data set, its list of pairs, or one of its files is invalid."""


class DescriptorError(UserError):
    """Descriptors that cannot be ranked: not finite, of wrong shapes, or too few."""


class CheckpointError(UserError):
    """A checkpoint is missing, corrupt, unsafe to load, or of another model."""


class BundleError(UserError):
    """A bundle is missing, incomplete, altered, or cannot run with the installed packages."""


class BuildError(UserError):
    """A backend could not build an engine, or built one that differs from the request: nothing is written."""


class ArchiveError(UserError):
    """An archive is damaged, not signed by a trusted key, or cannot be installed; or a key file holds no key."""


class VersionDamaged(ArchiveError):
    """An installed version is not what a trusted key signed."""

    exit_code = 1


class GalleryError(UserError):
    """A gallery is missing, corrupt, or lacks what the call needs."""


class EmbeddingSpaceMismatch(GalleryError):
    """The queries are from another embedding space than the gallery."""


class OutputExists(UserError):
    """The output exists already; it is never overwritten."""


class MissingDependency(UserError):
    """An optional package that the call needs is not installed, or two installed ones conflict."""


class ConfigError(UserError):
    """A configuration value is unknown, of the wrong type, or out of range."""


class ArgumentError(ConfigError):
    """An argument's value is not allowed. `name` is a function's parameter or a dataclass's field, and `fault` the rest
    of the message, with {} where it names each of `others`; the command line puts options in the names' places.
    """

    def __init__(self, name: str, fault: str, *others: str) -> None:
        self.name, self.fault, self.others = name, fault, others
        super().__init__(self.spelled(str))

    def __reduce__(self) -> tuple[type["ArgumentError"], tuple[str, ...]]:
        return type(self), (self.name, self.fault, *self.others)

    def spelled(self, spell: Callable[[str], str]) -> str:
        """The message with each name as `spell` gives it."""
        fault = self.fault.format(*map(spell, self.others)) if self.others else self.fault
        return f"{spell(self.name)} {fault}"


class Undecided(UserError):
    """The pairs prove neither that a gate is met nor that it is not: nothing is written. More pairs would decide."""

    exit_code = 3


class GateNotMet(UserError):
    """The result misses a limit that the user set: nothing is written."""

    exit_code = 1
