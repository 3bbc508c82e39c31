"""Sizes of memory, as people write them."""

import re


def read_size(text: str) -> int:
    """Reads a size such as 80GiB, 16GB or 500MB, in bytes.

    Raises:
      ValueError: if it is none, or nothing.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT])(i?)B", text.strip())
    size = 0
    if found is not None:
        unit = (1024 if found[3] else 1000) ** (" KMGT".index(found[2]))
        size = int(float(found[1]) * unit)
    if size < 1:
        raise ValueError(f"--device_memory must be a size such as 80GiB or 500MB, got {text!r}")
    return size
