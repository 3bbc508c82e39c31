"""Reads datasets that were prepared in a TFDS data directory, in array_record.

TensorFlow is not needed.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, cast

import numpy as np

from kd_jax.data import builders
from kd_jax.data.builders import labels_of_text
from kd_jax.data.readers import image_decoding, splits, tfds_folders
from kd_jax.data.source import Source, as_id, each_apart, fingerprint, text_contents, texts_of
from kd_jax.tasks import CLASSIFICATION, Task
from kd_jax.tasks.labels import number_labels

SOFT_LABELS = "soft_labels"
"""Feature [K] of a dataset that a teacher labelled, in the order of its classes."""

# Records read at a time.
_CHUNK = 1_000


def open_prepared(
    name: str,
    split: str,
    dir: str | None,
    columns: tuple[str, ...],
    label: str | None,
    class_names: tuple[str, ...] | None,
    task: Task = CLASSIFICATION,
    id_feature: str | None = None,
) -> Source:
    """Opens one split of a TFDS or built-in dataset, which is prepared first if necessary.

    Arguments are as in `open_source`. Without `id_feature` a row's id is its place, "<split>:<n>",
    counted from 0.

    Raises:
      ValueError: with one line that says what is missing and how to get it.
    """
    import tensorflow_datasets as tfds

    root, provenance = tfds_folders.find_root(dir), {}
    if name in builders.BUILDERS:
        folder, provenance = builders.prepare(name, root)
    else:
        folder = tfds_folders.find_folder(root, name) or tfds_folders.download(name, root)
    builder: Any = tfds.builder_from_directory(folder)
    # Other formats, such as TFDS's default, TFRecord, are read by TensorFlow.
    file_format = builder.info.file_format.value
    if file_format != "array_record":
        advice = tfds_folders.advise(name, root)
        raise ValueError(f"{name!r} in {folder} is in {file_format}, not array_record; {advice}")
    features = dict(builder.info.features.items())
    # The built-in texts have a label for every task.
    made, names = None, cast(Any, features.get(label))
    if name in builders.BUILDERS and isinstance(features.get(columns[0]), tfds.features.Text):
        made = labels_of_text.LABELS.get(task.name)
    for column in (*columns, *([label] if label else [])):
        if column not in features:
            raise ValueError(
                f"{name!r} has no feature {column!r}; it has {', '.join(sorted(features))}"
            )
    # Only a ClassLabel names its classes; a number or a text doesn't.
    if made is None and label is not None:
        _check_feature(names, label, name, task)
    parts = splits.select(
        split, {key: info.num_examples for key, info in builder.info.splits.items()}, name
    )
    records = Records(builder, parts, columns)
    inputs, found, contents, modality = read_records(records, columns, label, features)
    rows: list[int] = list(range(len(found)))
    ids = _ids(builder, parts, id_feature, name)
    if made is not None:
        class_names, label_of = made
        # Cut at its spaces, a text has as many words as labels.
        inputs = [" ".join(text.split()) for text in inputs] if task.words else inputs
        # Texts side by side are as good a pair as any.
        if task.apart:
            inputs = list(zip(inputs[::2], inputs[1::2], strict=False))
        found = [label_of(text) for text in inputs]
        rows = rows[: len(found)]
    ids = ids[: len(found)]
    if task.apart:
        ids = [each for each, value in zip(ids, inputs, strict=True) for _ in texts_of(value)]
        inputs, found, rows = each_apart(inputs, found, rows)
    if task.words or task.apart:
        contents = text_contents(inputs)
    if made is None and task.feature == "class":
        class_names = class_names or tuple(names.names)
        # Labels are stored as the dataset's numbers; another order of classes may be asked for.
        numbers = _number(found, names.names, class_names)
    else:
        columns = () if label is None else (label,)
        numbers, class_names = task.number(found, found, class_names, columns, rows)
    digest = fingerprint(contents, numbers, class_names)
    source = Source(
        f"{name} {split}",
        modality,
        inputs,
        numbers,
        tuple(class_names),
        digest,
        (),
        provenance,
        [row + 1 for row in rows] if task.apart else (),
        ids=ids,
    )
    return (
        _with_soft_labels(source, builder, parts, names.names)
        if SOFT_LABELS in features and task.one_class
        else source
    )


def _ids(builder: Any, parts: list[tuple[str, range]], feature: str | None, name: str) -> list[str]:
    """Returns the ids of a split's rows: a feature's, or "<split>:<position, from 0>"."""
    if feature is None:
        return [f"{key}:{row}" for key, rows in parts for row in rows]
    if feature not in builder.info.features:
        features = ", ".join(sorted(builder.info.features))
        raise ValueError(f"{name!r} has no feature {feature!r} (data.id); it has {features}")
    found = [record[feature] for record in Records(builder, parts, (feature,))]
    ids = [each.decode() if isinstance(each, bytes) else each for each in found]
    try:
        return [as_id(np.asarray(each).item(), feature) for each in ids]
    except ValueError as error:
        raise ValueError(f"{name!r}: {error}") from None


def _check_feature(feature: Any, label: str, name: str, task: Task) -> None:
    """Refuses a feature that holds no labels of the task."""
    import tensorflow_datasets as tfds

    of: Any = feature.np_dtype
    kinds = {
        "class": isinstance(feature, tfds.features.ClassLabel),
        "number": feature.shape == () and np.dtype(of).kind == "f",
    }
    if task.feature is None:
        raise ValueError(f"task {task.name!r} reads tables; {name!r} is a prepared dataset")
    if not kinds[task.feature]:
        wanted = {"class": "class label", "number": "number"}[task.feature]
        raise ValueError(f"feature {label!r} of {name!r} is no {wanted} but {feature}")


def _with_soft_labels(
    source: Source, builder: Any, parts: list[tuple[str, range]], names: list[str]
) -> Source:
    soft = np.stack([record[SOFT_LABELS] for record in Records(builder, parts, ())])
    if set(names) != set(source.class_names):
        raise ValueError(
            f"{source.name!r} has soft labels of {', '.join(names)}, not"
            f" {', '.join(source.class_names)}"
        )
    # Columns in the order of the experiment's classes, which may not be the dataset's.
    soft = soft[:, [names.index(name) for name in source.class_names]]
    digest = fingerprint(
        [source.fingerprint.encode(), soft.tobytes()], source.labels, source.class_names
    )
    return replace(source, soft_labels=soft, fingerprint=digest)


class Records:
    """The records of a split's parts, pictures left encoded: iterable, with random access."""

    def __init__(self, builder: Any, parts: list[tuple[str, range]], columns: tuple[str, ...]):
        import tensorflow_datasets as tfds

        pictures = [
            key for key in columns if isinstance(builder.info.features[key], tfds.features.Image)
        ]
        decoders = {key: tfds.decode.SkipDecoding() for key in pictures} or None
        self._sources: dict[str, Any] = {
            key: builder.as_data_source(split=key, decoders=decoders) for key, _ in parts
        }
        self._parts = parts

    def __len__(self) -> int:
        return sum(len(rows) for _, rows in self._parts)

    def __iter__(self) -> Iterator[dict]:
        for key, rows in self._parts:
            for start in range(0, len(rows), _CHUNK):
                yield from self._sources[key].__getitems__(list(rows[start : start + _CHUNK]))

    def __getitem__(self, index: int) -> dict:
        for key, rows in self._parts:
            if index < len(rows):
                return self._sources[key][rows[index]]
            index -= len(rows)
        raise IndexError(index)


def read_records(
    records: Records, columns: tuple[str, ...], label: str | None, features: Any
) -> tuple[Any, list[Any], Any, str]:
    """Reads inputs and labels into memory.

    Returns:
      Inputs and modality as in `Source`, labels [N], None without a feature of them, and an
      iterable of each input's bytes.

    Raises:
      ValueError: if the feature is neither text nor pictures, or a picture is broken.
    """
    import tensorflow_datasets as tfds

    kinds: list[Any] = [features[column] for column in columns]
    labels: list[Any] = []
    if all(isinstance(kind, tfds.features.Text) for kind in kinds):
        texts = []
        for record in image_decoding.show_progress(records, len(records), "reading text"):
            pair = tuple(record[column].decode("utf-8", "replace") for column in columns)
            texts.append(pair if len(columns) == 2 else pair[0])
            labels.append(_label(record, label))
        return texts, labels, text_contents(texts), "text"
    # Images are an encoded feature, or an array of bytes [H, W, C] as some datasets store them.
    kind, column = kinds[0], columns[0]
    if len(columns) > 1 or not (
        isinstance(kind, tfds.features.Image)
        or (kind.np_dtype == np.uint8 and len(kind.shape) == 3)
    ):
        raise ValueError(
            f"feature {' and '.join(columns)!r} is neither text nor an image but {kinds}"
        )
    values = [record[column] for record in _collect_labels(records, label, labels)]
    if not isinstance(kind, tfds.features.Image):
        images = np.stack(values)
        return images, labels, (image.tobytes() for image in images), "image"
    shape: Any = kind.shape
    # The dataset may not say how many channels its pictures have; then the pictures decide.
    channels = shape[-1] if shape[-1] in (1, 3) else None
    images, bad = image_decoding.load_images(
        values, len(values), lambda i: records[i][column], channels
    )
    if bad:
        position, reason = next(iter(bad.items()))
        raise ValueError(
            f"image {position} of the prepared dataset is broken: {reason}; prepare it anew"
        )
    return images, labels, iter(values), "image"


def _label(record: Mapping[str, Any], label: str | None) -> Any:
    return None if label is None else np.asarray(record[label]).item()


def _collect_labels(records: Records, label: str | None, labels: list[Any]) -> Iterator[dict]:
    for record in image_decoding.show_progress(records, len(records), "reading images"):
        labels.append(_label(record, label))
        yield record


def _number(found: list[int], names: list[str], class_names: tuple[str, ...]) -> np.ndarray:
    for row, label in enumerate(found):
        if not -1 <= label < len(names):
            raise ValueError(f"label {label} (row {row}) is not among the {len(names)} classes")
    return number_labels(
        [None if label < 0 else names[label] for label in found], class_names, range(len(found))
    )
