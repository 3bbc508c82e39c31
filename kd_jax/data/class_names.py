"""The names of a dataset's classes, where the data don't say them."""

from collections.abc import Sequence
from pathlib import Path


def read_class_names(given: str | Sequence[str] | None) -> tuple[str, ...] | None:
    """Returns the names by number.

    Args:
      given: the config's `data.class_names`: the names, or a text file with one a line; None: the
        data say them.

    Raises:
      ValueError: if there is no such file, or a name stands there twice.
    """
    if given is None:
        return None
    names = tuple(given) if not isinstance(given, str) else _read(Path(given).expanduser())
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"data.class_names has {twice[0]!r} twice")
    return names


def _read(path: Path) -> tuple[str, ...]:
    if not path.is_file():
        raise ValueError(f"data.class_names: there is no file {str(path)!r}")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"data.class_names: {str(path)!r} is not valid UTF-8") from None
    names = tuple(line.strip() for line in lines if line.strip())
    if not names:
        raise ValueError(f"data.class_names: {str(path)!r} holds no names")
    return names
