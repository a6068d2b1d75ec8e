"""Errors a user can mend: each message names the offending value, what is allowed, and the way out.

The command line prints a `UserError` without a traceback and exits with 2. Anything else is a bug and keeps its
traceback.
"""


class UserError(Exception):
    """Base of every error that the user can mend. A command then exits with `exit_code`.

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
    """A data set, its list of pairs, or one of its files is not what its kind promises."""


class DescriptorError(UserError):
    """Descriptors that cannot be ranked: not finite, of wrong shapes, or too few."""


class CheckpointError(UserError):
    """A checkpoint is missing, corrupt, unsafe to load, or of another model."""


class BundleError(UserError):
    """A bundle is missing, incomplete, altered, or cannot be run by what is installed."""


class BuildError(UserError):
    """A backend could not build an engine, or built another one than was asked for: nothing is written."""


class GalleryError(UserError):
    """A gallery is missing, corrupt, or lacks what the call needs."""


class EmbeddingSpaceMismatch(GalleryError):
    """Queries of one embedding space were put to a gallery of another."""


class OutputExists(UserError):
    """The output's place is taken: nothing that exists is overwritten."""


class MissingDependency(UserError):
    """An optional package that the call needs is not installed, or two are installed that exclude each other."""


class ConfigError(UserError):
    """A configuration value is unknown, of the wrong type, or out of range."""


class Undecided(UserError):
    """The pairs prove neither that a gate is met nor that it is not: nothing is written. More pairs would decide."""

    exit_code = 3


class GateNotMet(UserError):
    """What was asked for was done and is not good enough by the measure that the user set: nothing is left of it."""

    exit_code = 1
