"""Keeps the host's memory that a step has freed for the next one."""

import ctypes
import os
import platform

M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8
"""What glibc's `mallopt` may be told, by the numbers of malloc.h."""

LARGEST = 2**31 - 1

ROOM = 15 * 2**30
"""Bytes of a machine from which on it may be done: a process takes up to twice its memory."""


def keep() -> bool:
    """Tells glibc to give no memory back to the system; to be called before the first array.

    XLA's CPU client allocates what a step needs anew in each step. glibc takes large blocks from
    the system and gives them back at once, so each step's pages are faulted in and zeroed again:
    125,000 of them, an eighth of the time, in a step of two MiniLM blocks. Kept, they are there
    already, and the process takes a third more memory, or up to twice as much.

    Returns:
      Whether it was told: not without glibc, on a machine of less than `ROOM`, nor where the user
      has set it by MALLOC_... or GLIBC_TUNABLES.
    """
    chosen = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
    if chosen or platform.libc_ver()[0] != "glibc" or _memory() < ROOM:
        return False
    mallopt = ctypes.CDLL(None).mallopt
    # Blocks outside the heap are never kept, and only the main arena's heap can hold large ones.
    settings = {M_ARENA_MAX: 1, M_MMAP_MAX: 0, M_TRIM_THRESHOLD: LARGEST}
    return all(mallopt(setting, value) for setting, value in settings.items())


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
