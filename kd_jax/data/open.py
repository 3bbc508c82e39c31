"""Opens a dataset by its name.

The name is a .csv, .tsv, .jsonl, .conll, .parquet or .arrow file, a folder of such files or of
images, `hf:OWNER/NAME` of the Hugging Face hub, one of the built-in datasets (`digits`,
`docstrings`, `hostile_docstrings`), which need no download, or any TFDS dataset, read without
TensorFlow.
"""

from dataclasses import replace
from pathlib import Path

from kd_jax.data.source import Source
from kd_jax.tasks import CLASSIFICATION, Task


def open_source(
    name: str,
    split: str,
    *,
    dir: str | None,
    inputs: str | tuple[str, str],
    label: str | tuple[str, ...] | None,
    max_rejected: int,
    class_names: tuple[str, ...] | None = None,
    unlabelled: tuple[str, ...] | None = None,
    task: Task = CLASSIFICATION,
    header: tuple[str, ...] | None = None,
    id: str | None = None,
    keep_blank: bool = False,
) -> Source:
    """Opens one split of a dataset.

    Args:
      name: as the module says. A built-in name such as `digits` always means the built-in
        dataset; write `./digits` for a folder of that name.
      split: in TFDS's syntax; see `kd_jax.data.readers.splits`. A single file or a folder of
        classes is all "train".
      dir: where TFDS datasets lie; None: the environment variable TFDS_DATA_DIR, else TFDS's
        default.
      inputs: the column or feature to read, or two of them for sentence pairs. Image folders have
        none.
      label: the column or feature that holds the class; None: there is none.
      max_rejected: how many unreadable rows are left out before it is an error.
      class_names: the classes the labels must belong to, such as the training data's; None: those
        of the dataset.
      unlabelled: labels of a table that mean that a row has none.
      task: how labels are read.
      header: names of the columns of CSV and TSV files without any.
      id: the column or feature that holds each row's id; None: it is the row's place.
      keep_blank: whether a row of a table with nothing where its label belongs has none; else it is
        rejected.

    Raises:
      ValueError: with one line that says what is wrong and what would be right.
    """
    # These import this module's types.
    from kd_jax.data import builders
    from kd_jax.data.readers import hugging_face, image_folders, tables, tfds

    label = label if task.reads_labels else None
    one = label if isinstance(label, str) else label[0] if label else None
    given = (label,) if isinstance(label, str) else tuple(label or ())
    if not given and task.needs_labels:
        raise ValueError(
            f"data.label is None, and task {task.name!r} needs labels (primary={task.primary!r})"
        )
    columns, path = (inputs,) if isinstance(inputs, str) else tuple(inputs), Path(name).expanduser()
    if task.words and len(columns) > 1:
        raise ValueError(
            f"data.inputs names {len(columns)} columns, and task {task.name!r} reads one of words"
        )
    if unlabelled and (name in builders.BUILDERS or not _is_table(path)):
        raise ValueError(
            f"data.unlabelled says which labels of a table mean none; {name!r} is no table"
        )
    if header and (name in builders.BUILDERS or not _is_table(path)):
        raise ValueError(f"data.header names the columns of tables; {name!r} is no table")
    if name in builders.BUILDERS:
        return tfds.open_prepared(name, split, dir, columns, one, class_names, task, id)
    fetched: dict[str, str] = {}
    if name.startswith(hugging_face.PREFIX):
        path, fetched = hugging_face.fetch(name)
    files = {"train": path} if path.is_file() else {}
    if path.is_dir():
        files = tables.find_tables(path)
    if files:
        source = tables.open_tables(
            name,
            files,
            split,
            columns,
            given,
            max_rejected,
            class_names,
            unlabelled,
            task,
            header,
            id,
            keep_blank,
        )
        return replace(source, provenance=source.provenance | fetched)
    if path.is_dir():
        if not task.one_class:
            raise ValueError(
                f"task {task.name!r} reads tables; in the folder {name!r} each image has one class"
            )
        if id is not None:
            raise ValueError(
                f"data.id names a column, and the id of an image in {name!r} is its path"
            )
        return image_folders.open_folder(name, path, split, max_rejected, class_names)
    # A name that looks like a path is a typing mistake, for which a list of TFDS datasets is no
    # help.
    if path.suffix.lower() in tables.SUFFIXES or name.startswith((".", "/", "~")):
        raise ValueError(f"there is no file or folder {name!r}")
    return tfds.open_prepared(name, split, dir, columns, one, class_names, task, id)


def _is_table(path: Path) -> bool:
    from kd_jax.data.readers import hugging_face, tables

    return (
        str(path).startswith(hugging_face.PREFIX)
        or path.is_file()
        or (path.is_dir() and bool(tables.find_tables(path)))
    )


def is_own(name: str) -> bool:
    """Tells whether a name means the user's own file or folder, not a TFDS or built-in dataset."""
    from kd_jax.data import builders

    return name not in builders.BUILDERS and Path(name).expanduser().exists()
