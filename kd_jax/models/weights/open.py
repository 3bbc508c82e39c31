"""Where published weights are opened: a folder or file -> what network it holds, and its
tensors."""

import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import flax.traverse_util
import numpy as np

from kd_jax.core import seal
from kd_jax.core.pytree import fingerprint
from kd_jax.models.layers import transformer
from kd_jax.models.weights import files
from kd_jax.models.weights.formats import FORMATS, HEAD, torch_files, weight_format

OWN = ("architecture.json", "finished.json")
"""What tells that a folder is an export of ours or a finished model of a run."""

OWN_HEADS = ("params/classifier/", "params/distillation_classifier/")
LEAVES_OF_HEADS = ("kernel", "bias")

POOLING_KEYS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""Key in `1_Pooling/config.json` before sentence-transformers 6 -> the way's name from then on."""


@dataclass(frozen=True)
class Published:
    """An opened folder or file.

    Attributes:
      owner: its path, for messages.
      layout: how its tensors are named.
      options: of `models.build`, without `num_classes`.
      tensors: by the layout's names, without prefix.
      num_classes: as many as it has a classifier for or says, None where it says nothing.
      inputs: argument -> shape of one example, where the folder says it.
      class_names: of the classifier's outputs, in their order, where the folder names them.
      problem_type: what its classifier was trained for, where the folder says it.
      task: likewise, as a run of ours describes it.
      channels: of the images it reads; text models don't ask.
    """

    owner: str
    layout: weight_format.WeightFormat
    options: dict[str, Any]
    tensors: dict[str, np.ndarray]
    num_classes: int | None
    channels: int = 3
    inputs: Mapping[str, Sequence[int]] = field(default_factory=dict)
    class_names: tuple[str, ...] | None = None
    problem_type: str | None = None
    task: Mapping[str, Any] | None = None


def open_weights(path: pathlib.Path) -> Published:
    """Opens a folder of Hugging Face, an export or a finished model of ours, or one safetensors or
    npz file.

    Raises:
      ValueError: if it is absent, damaged or a pickle, or the network is not supported.
    """
    # First, since these two files say exactly what the tensors are.
    if any((path / name).is_file() for name in OWN):
        return _open_own(path)
    if path.is_file():
        tensors = files.read_file(path)
        try:
            found, options = torch_files.recognise(tensors)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        channels = next(
            tensors[name].shape[1]
            for name in ("conv1.weight", "features.0.weight")
            if name in tensors
        )
        return Published(
            str(path), found, options, dict(tensors), options.pop("num_classes"), channels
        )
    return _open_hugging_face(path)


def _open_own(folder: pathlib.Path) -> Published:
    path = next(folder / name for name in OWN if (folder / name).is_file())
    description = files.read_json(path)
    if not isinstance(description.get("architecture"), dict):
        raise ValueError(
            f"{folder} doesn't say its architecture; it was written by an older version"
        )
    # Names of classes in another order would give other labels with whole weights.
    if changed := seal.problem(folder, path.name, description):
        raise ValueError(f"{folder}: {changed}; restore it, or export the model again")
    tensors = files.read_folder(folder)
    variables: Any = flax.traverse_util.unflatten_dict(tensors, sep="/")
    if fingerprint(variables) != description.get("fingerprint"):
        raise ValueError(
            f"{folder}: the weights differ from their fingerprint; they are damaged or not these"
        )
    names = description.get("class_names")
    return replace(
        own_source(str(folder), description["architecture"], variables),
        inputs=description.get("inputs", {}),
        class_names=None if names is None else tuple(map(str, names)),
        task=description.get("task"),
    )


def own_source(
    owner: str, architecture: Mapping[str, Any], variables: Mapping[str, Any]
) -> Published:
    """Returns a model of ours as published weights.

    Args:
      owner: for messages.
      architecture: as `registry.describe` gives it.
      variables: the model's.
    """
    options, nested = dict(architecture), dict(variables)
    # Others read one tensor a block; a scanned model stacks all blocks in one.
    if options.pop("scan", False):
        nested["params"] = transformer.unstack_blocks(nested["params"])
        options["scan"] = True
    tensors: Any = flax.traverse_util.flatten_dict(nested, sep="/")
    return Published(owner, weight_format.Own(), options, tensors, options.pop("num_classes"))


def _open_hugging_face(folder: pathlib.Path) -> Published:
    config = files.read_json(folder / "config.json")
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in FORMATS:
        raise ValueError(
            f"{folder}: model_type {kind!r} is not supported; supported: {sorted(FORMATS)}"
        )
    predicts = _predicts(config)
    found = FORMATS[kind].of(predicts)
    # Only single files lack it, and no folder has their format.
    assert found.options is not None
    try:
        options = found.options(config)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from None
    # sentence-transformers keeps the pooling apart from config.json.
    if options["name"] in ("encoder", "modernbert"):
        pooling = folder / "1_Pooling" / "config.json"
        options["pooling"] = _pooling(files.read_json(pooling)) if pooling.exists() else "cls"
        if predicts != "example":
            options["predicts"] = predicts
    tensors = _normalised(folder, found, files.read_folder(folder))
    # An export of a sentence encoder keeps its classifier apart.
    if (folder / HEAD).is_file():
        head = files.read_file(folder / HEAD)
        for leaf in ("kernel", "bias"):
            (name,) = found.sources(f"params/classifier/{leaf}")
            tensors[name] = head[name.rpartition(".")[2]]
    _check_sizes(folder, options, tensors)
    classifier, labels = found.sources("params/classifier/kernel")[0], config.get("id2label")
    # id2label is there without a classifier too; the classifier's own size is surer.
    classes = len(labels) if isinstance(labels, dict) and labels else None
    if classifier in tensors and tensors[classifier].ndim == 2:
        classes = tensors[classifier].shape[0]
    return Published(
        str(folder),
        found,
        options,
        tensors,
        classes,
        config.get("num_channels", 3),
        class_names=_class_names(labels, classes),
        # An export of labels for which softmax is wrong says so only here.
        problem_type=config.get("problem_type") if classifier in tensors else None,
    )


def _predicts(config: Mapping[str, Any]) -> str:
    """Returns for what a folder's classifier gives logits."""
    names = config.get("architectures")
    # A single name, as transformers writes it; others may write anything.
    name = str(names[0]) if isinstance(names, list) and names else ""
    return "token" if name.endswith("ForTokenClassification") else "example"


def predicting(source: Published, predicts: str) -> Published:
    """Returns the weights as those of a network with other predictions, whose head is still to be
    made; unchanged where it has these.

    Raises:
      ValueError: if the format has no such network.
    """
    if predicts == source.options.get("predicts", "example"):
        return source
    layers = [f"params/{head}/{leaf}" for head in source.layout.heads for leaf in LEAVES_OF_HEADS]
    own = {name for leaf in layers for name in source.layout.sources(leaf)}
    layout = source.layout.of(predicts)
    # What stands between the network and both heads stays.
    own -= {
        name
        for head in layout.heads
        if not head.endswith("classifier") and head in source.layout.heads
        for leaf in LEAVES_OF_HEADS
        for name in layout.sources(f"params/{head}/{leaf}")
    }
    return replace(
        source,
        layout=layout,
        options={**source.options, "predicts": predicts},
        tensors={
            name: tensor
            for name, tensor in source.tensors.items()
            if name not in own and not name.startswith(OWN_HEADS)
        },
        num_classes=None,
        class_names=None,
        problem_type=None,
    )


def _check_sizes(
    folder: pathlib.Path, options: Mapping[str, Any], tensors: Mapping[str, np.ndarray]
) -> None:
    """Refuses sizes that no tensor has, before a network of a million blocks is built for them."""
    largest = max([len(tensors), *(side for each in tensors.values() for side in each.shape)])
    for key, value in options.items():
        # The size of an image is no tensor's; that of the patches is.
        given = value if isinstance(value, list | tuple) else [value]
        for each in given if key != "image_size" else ():
            # In Python True is an int.
            if isinstance(each, int) and not isinstance(each, bool) and not 0 <= each <= largest:
                raise ValueError(
                    f"{folder}: config.json makes {key} {value}, and no tensor there is of that"
                    f" size; the largest is {largest}"
                )


def _class_names(labels: Any, classes: int | None) -> tuple[str, ...] | None:
    """Returns the names in `id2label` by number; None where it doesn't name each class once."""
    if not isinstance(labels, dict) or classes is None or len(labels) != classes:
        return None
    names = [labels.get(str(number)) for number in range(classes)]
    return None if None in names else tuple(map(str, names))


def _pooling(config: Mapping[str, Any]) -> str:
    """Returns the encoder's option for a sentence encoder's `1_Pooling/config.json`.

    A way that the encoder doesn't have comes back by its own name, for the check of the options to
    refuse, unless the caller gives another one."""
    if "pooling_mode" in config:
        given = config["pooling_mode"]
        modes = given if isinstance(given, list) else [given]
    else:
        # Before version 6 each way was a key; an absent one had these defaults.
        modes = [name for key, name in POOLING_KEYS.items() if config.get(key, name == "mean")]
    # Their first token goes through no dense layer, so it isn't our "cls".
    return "+".join("first" if mode == "cls" else str(mode) for mode in modes)


def _normalised(
    folder: pathlib.Path, found: weight_format.WeightFormat, tensors: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Renames tensors: no prefix, `weight` and `bias` in LayerNorms, no counters of batches."""
    renamed: dict[str, np.ndarray] = {}
    for name, tensor in tensors.items():
        if name.endswith("num_batches_tracked"):
            continue
        # The first BERT checkpoints, bert-base-uncased among them, call a LayerNorm's weight and
        # bias gamma and beta.
        new = name.removeprefix(found.prefix).replace("LayerNorm.gamma", "LayerNorm.weight")
        new = new.replace("LayerNorm.beta", "LayerNorm.bias")
        if new in renamed:
            raise ValueError(f"{folder} has two tensors for {new!r}")
        renamed[new] = tensor
    return renamed
