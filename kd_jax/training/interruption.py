"""How a run ends early: a signal, or numbers that aren't finite."""

import signal
import threading
from types import FrameType

import jax
import numpy as np
from jax.experimental import multihost_utils

RESUMABLE = 75
"""Exit status of a run that SIGTERM stopped and that can go on (EX_TEMPFAIL of sysexits.h)."""


class Interrupted(Exception):
    """The run was asked to stop; its state is saved and it can be resumed."""


class Diverged(Exception):
    """A loss or a gradient is no longer a finite number."""


class StopSignal:
    """Remembers that SIGTERM came. In a cluster the processes agree on it, so that all stop at the
    same step."""

    def __init__(self) -> None:
        self._asked = False
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._remember)

    def _remember(self, _number: int, _frame: FrameType | None) -> None:
        self._asked = True

    def asked(self, *, agree: bool) -> bool:
        """Tells whether to stop now.

        Alone at once, in a cluster only at the steps where all processes `agree` on it.
        """
        if jax.process_count() == 1:
            return self._asked
        return agree and bool(np.any(multihost_utils.process_allgather(np.asarray(self._asked))))
