"""Every exception that secateur raises on purpose.

`InputError` means that what the user gave is wrong; `CheckError` that a check of ours failed. The command line
turns them into one line on stderr and the exit codes 2 and 1. Each message answers: what was given, what is
allowed, what to do next.
"""


class SecateurError(Exception):
    """Base of all exceptions raised on purpose."""

    exit_code = 1


class InputError(SecateurError, ValueError):
    """What the user gave is wrong."""

    exit_code = 2


class GraphError(InputError):
    """The network cannot be traced."""


class PlanMismatchError(InputError):
    """A plan was made for another network."""


class BudgetError(InputError):
    """A budget is out of range or cannot be reached."""


class EvidenceError(InputError):
    """The batches or the loss given to a criterion cannot be used."""


class RecipeError(InputError):
    """A recipe, a setting or a name in it is wrong."""


class DataError(InputError):
    """Images, masks or splits are missing or malformed."""


class RecordError(InputError):
    """A record, run folder or checkpoint is missing, unreadable or of another schema."""


class CheckError(SecateurError, RuntimeError):
    """A check failed; nothing half-written is left behind."""


class ProofError(CheckError):
    """The masked network and the physically smaller one differ."""


class ParityError(CheckError):
    """An exported network differs from PyTorch."""


class TrainingError(CheckError):
    """Training met a loss that is not finite; the last good checkpoint is kept."""
