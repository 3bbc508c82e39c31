"""Reads image folders: `class/picture.png`, or `train/class/picture.png` beside other splits."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from kd_jax.core import limits
from kd_jax.data.readers import image_decoding, splits
from kd_jax.data.source import Rejected, Source, check_rejected, fingerprint
from kd_jax.tasks.labels import name_classes, number_labels

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif")


def open_folder(
    name: str, folder: Path, split: str, max_rejected: int, class_names: tuple[str, ...] | None
) -> Source:
    """Opens one split of an image folder; arguments as in `open_source`.

    Raises:
      ValueError: if there are no images, for a bad split, too many bad images or a class outside
        `class_names`.
    """
    found = find_images(folder)
    parts = splits.select(split, {key: len(paths) for key, paths in found.items()}, name)
    paths: list[Path] = []
    rows: list[int] = []
    for key, positions in parts:
        # By path within the folder, so that a copy of the folder elsewhere has the same splits.
        order = splits.fixed_order(path.relative_to(folder).as_posix() for path in found[key])
        paths += [found[key][order[i]] for i in positions]
        rows += [order[i] + 1 for i in positions]
    # Opening a pipe would wait for ever, and a device has no end.
    special = [i for i, path in enumerate(paths) if not path.is_file()]
    rejected = [
        Rejected(rows[i], "not a regular file", str(paths[i].relative_to(folder))) for i in special
    ]
    rows = [row for i, row in enumerate(rows) if i not in special]
    paths = [path for i, path in enumerate(paths) if i not in special]
    images, bad = image_decoding.load_images(
        _read_all(paths), len(paths), lambda i: read_picture(paths[i])
    )
    rejected += [
        Rejected(rows[i], reason, str(paths[i].relative_to(folder))) for i, reason in bad.items()
    ]
    check_rejected(rejected, max_rejected, name)
    good = [i for i in range(len(paths)) if i not in bad]
    if not good:
        raise ValueError(
            f"split {split!r} of {name!r} is empty: none of its {len(paths)} images can be read"
        )
    # Classes of all splits, since the one that is asked for need not hold every class.
    class_names = class_names or name_classes(
        path.parent.name for group in found.values() for path in group
    )
    given, rows = [paths[i].parent.name for i in good], [rows[i] for i in good]
    numbers = number_labels(given, class_names, rows)
    # Over the files as they are, which is exact and needs no decoding.
    digest = fingerprint(_read_all([paths[i] for i in good]), numbers, class_names)
    return Source(
        f"{name} {split}",
        "image",
        images,
        numbers,
        tuple(class_names),
        digest,
        tuple(rejected),
        rows=rows,
        ids=[paths[i].relative_to(folder).as_posix() for i in good],
    )


def find_images(folder: Path) -> dict[str, list[Path]]:
    """Finds the image files of a folder, by split, sorted.

    A folder of class folders is all "train".

    Raises:
      ValueError: if there are none.
    """
    direct = _find_by_class(folder)
    found = {"train": direct} if direct else {}
    if not direct:
        found = {
            child.name: paths for child in _children(folder) if (paths := _find_by_class(child))
        }
    if not found:
        raise ValueError(
            f"{str(folder)!r} holds neither .csv, .tsv or .jsonl files"
            f" nor class folders with {', '.join(SUFFIXES)} images"
        )
    return found


def _find_by_class(folder: Path) -> list[Path]:
    return [
        path
        for child in _children(folder)
        for path in sorted(child.iterdir())
        if path.suffix.lower() in SUFFIXES and not path.is_dir() and not path.name.startswith(".")
    ]


def _children(folder: Path) -> list[Path]:
    return sorted(
        child for child in folder.iterdir() if child.is_dir() and not child.name.startswith(".")
    )


def _read_all(paths: Sequence[Path]) -> Iterator[bytes]:
    return map(read_picture, paths)


def read_picture(path: Path) -> bytes:
    """Reads a file; one that is larger than any picture only so far that this can be told."""
    with path.open("rb") as file:
        return file.read(limits.PICTURE + 1)
