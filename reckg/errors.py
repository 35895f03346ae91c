"""Errors that reckg raises on purpose. Each message names the problem, its place, and a remedy."""


class ReckgError(Exception):
    """Base of all errors of reckg. The command line prints the message and exits with 2, without a traceback."""


class DataError(ReckgError):
    """Input data breaks the data contract, or is empty."""


class FilterError(DataError):
    """A filter names a column that the catalogue does not have, or does not fit it."""


class ConfigError(ReckgError):
    """A configuration is wrong. The message lists every problem."""


class ArtifactError(ReckgError):
    """A file that reckg wrote is missing, damaged, or belongs to another run."""


class CannotEmbedError(ArtifactError):
    """A request needs vectors of new items or users, and the bundle has no embedder. Names no ids."""


class UnknownIdError(ReckgError):
    """A user, item or entity id that the bundle does not know."""


class DeadlineError(ReckgError):
    """A request's deadline passed before a stage, or its caller went away. Names no ids."""
