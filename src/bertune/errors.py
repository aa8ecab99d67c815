"""Every exception that bertune raises on purpose.

```
BertuneError
|- ConfigError    (ValueError)    a setting is unknown, impossible, or contradicts another
|- DataError      (ValueError)    a file or a row of it cannot be used; names file and line
|- TaskNotFound   (LookupError)   no task of that name
|- ArtifactError  (ValueError)    a saved folder is missing, damaged, or made by something else
|- MissingExtra   (ImportError)   an optional package is needed; names the install command
`- TrainingError  (RuntimeError)  training cannot go on, such as a loss that is not finite
```

`Interrupted` is none of them: it is a KeyboardInterrupt that says how to go on.

Each message says what is wrong, where, what was found, what is allowed, and what to do.
At the command line all of them are the user's to mend: exit code 2, without a traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable


class BertuneError(Exception):
    """The root of all errors raised on purpose."""


class ConfigError(BertuneError, ValueError):
    """A setting is unknown, impossible, or contradicts another."""


class DataError(BertuneError, ValueError):
    """A data file, or a row of it, cannot be used."""


class LazyDataError(DataError):
    """A DataError whose message is made when it is shown: of a thousand bad rows a few are.

    Args:
        make_message: returns the message.
    """

    def __init__(self, make_message: Callable[[], str]) -> None:
        super().__init__()
        self._make_message = make_message

    def __str__(self) -> str:
        """Return the message."""
        return self._make_message()

    def __reduce__(self) -> tuple[type[DataError], tuple[str]]:
        """Pickle as a DataError with the message."""
        return DataError, (str(self),)


class TaskNotFound(BertuneError, LookupError):
    """No task has the given name."""


class ArtifactError(BertuneError, ValueError):
    """A model folder is missing, damaged, or made by something else."""


class MissingExtra(BertuneError, ImportError):
    """An optional package is needed for what was asked."""

    def __init__(self, package: str, extra: str, why: str) -> None:
        super().__init__(
            f"{why} needs the package {package!r}; install it with: pip install 'bertune[{extra}]'"
        )


class TrainingError(BertuneError, RuntimeError):
    """Training cannot go on."""


class Interrupted(KeyboardInterrupt):
    """Training was asked to stop by a signal, and has written a checkpoint.

    A `KeyboardInterrupt`, as notebooks expect.

    Attributes:
        number: the signal, SIGINT (2) or SIGTERM (15).
    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.number = number


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" for the known word closest to `word`, or nothing.

    >>> did_you_mean("lerning_rate", ["learning_rate", "seed"])
    "; did you mean 'learning_rate'?"
    >>> did_you_mean("zzz", ["seed"])
    ''
    """
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""


def listed(items: Iterable[object], most: int = 10) -> str:
    """Join items for a message, the first `most` of them.

    >>> listed(["a", "b"])
    "'a', 'b'"
    >>> listed(range(4), most=2)
    '0, 1, ... (4 in all)'
    """
    every = list(items)
    shown = ", ".join(repr(item) for item in every[:most])
    return shown if len(every) <= most else f"{shown}, ... ({len(every)} in all)"
