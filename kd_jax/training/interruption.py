"""How a run ends early: a signal, or numbers that aren't finite."""

import os
import signal
import sys
import threading
import weakref
from types import FrameType
from typing import ClassVar

import jax
import numpy as np
from jax.experimental import multihost_utils

STOPPING = b"stopping after this step, with all saved; Ctrl-C again ends at once\n"


class Interrupted(Exception):
    """The run was asked to stop; its state is saved and it can be resumed."""


class Diverged(Exception):
    """A loss or a gradient is no longer a finite number."""


class StopSignal:
    """Remembers that SIGTERM, or Ctrl-C, came since it was made.

    All that are alive are told, so that a sweep and the run that it has begun both stop. In a
    cluster the processes agree on it, so that all stop at the same step. A second Ctrl-C raises
    KeyboardInterrupt at once, as the first does where nothing waits for it.
    """

    _alive: ClassVar[weakref.WeakSet["StopSignal"]] = weakref.WeakSet()

    def __init__(self) -> None:
        self._asked = False
        StopSignal._alive.add(self)
        # Python lets only the main thread set a handler; other threads share the one that it set.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, StopSignal._remember)
            # Whoever ignores Ctrl-C, as a job in the background does, goes on ignoring it.
            if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                signal.signal(signal.SIGINT, StopSignal._remember)

    @staticmethod
    def _remember(number: int, frame: FrameType | None) -> None:
        # A copy, since the garbage collector may take entries out of a weak set at any time.
        alive = tuple(StopSignal._alive)
        if number == signal.SIGINT:
            # After the run the handler is still there, and a program around it needs its Ctrl-C.
            if not alive or all(each._asked for each in alive):
                signal.default_int_handler(number, frame)
            # Not by print: the signal may have come in the middle of another one.
            os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, STOPPING)
        for each in alive:
            each._asked = True

    def asked(self, *, agree: bool) -> bool:
        """Tells whether to stop now.

        Alone at once, in a cluster only at the steps where all processes `agree` on it.
        """
        # The gathering blocks until every process calls it, so it must happen at agreed steps only.
        if jax.process_count() == 1:
            return self._asked
        return agree and bool(np.any(multihost_utils.process_allgather(np.asarray(self._asked))))
