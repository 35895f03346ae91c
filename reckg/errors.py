"""The errors that reckg raises on purpose; each says what is wrong, where, and what to do."""


class ReckgError(Exception):
    """Base of every error below: a command line prints its message and exits with 2, without a traceback."""


class DataError(ReckgError):
    """Input data breaks the data contract, or holds nothing to work on."""


class FilterError(DataError):
    """A filter names a column that the catalogue does not have, or does not fit it."""


class ConfigError(ReckgError):
    """A configuration is wrong; the message lists every problem that was found."""


class ArtifactError(ReckgError):
    """A file that reckg wrote is missing, damaged, or belongs to another run."""


class CannotEmbedError(ArtifactError):
    """A bundle holds nothing to embed new items and users with, and a request asks for it. Names no ids."""


class UnknownIdError(ReckgError):
    """A user, item or entity id that the bundle does not know."""


class DeadlineError(ReckgError):
    """The time for a request ran out, or nobody waits for its answer any more, before a stage. Names no ids."""
