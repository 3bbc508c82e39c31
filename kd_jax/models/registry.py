"""Builds a model from a config's section: a name and its options."""

import dataclasses
import numbers
import typing
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
from ml_collections import ConfigDict

from kd_jax.core.option_types import fits
from kd_jax.core.types import Count
from kd_jax.models.image import (
    cifar_resnet,
    cnn,
    mobilenet,
    resnet,
    shufflenet_v1,
    shufflenet_v2,
    vgg,
    vit,
    wide_resnet,
)
from kd_jax.models.presets import PRESETS
from kd_jax.models.text import bag_of_embeddings, bert, bilstm, modern_bert, text_cnn, text_vgg

MODELS: dict[str, type[nn.Module]] = {
    "bag_of_embeddings": bag_of_embeddings.BagOfEmbeddings,
    "bilstm": bilstm.BiLstm,
    "cifar_resnet": cifar_resnet.CifarResNet,
    "cnn": cnn.Cnn,
    "encoder": bert.Encoder,
    "modernbert": modern_bert.ModernBert,
    "mobilenet_v2": mobilenet.MobileNetV2,
    "resnet": resnet.ResNet,
    "shufflenet_v1": shufflenet_v1.ShuffleNetV1,
    "shufflenet_v2": shufflenet_v2.ShuffleNetV2,
    "text_cnn": text_cnn.TextCnn,
    "text_vgg": text_vgg.TextVgg,
    "vgg": vgg.Vgg,
    "vit": vit.VisionTransformer,
    "wide_resnet": wide_resnet.WideResNet,
}
"""Name -> constructor of a Linen module."""


def build(spec: Mapping[str, Any] | ConfigDict) -> nn.Module:
    """Builds a model from a config's section.

    Args:
      spec: `name`, one of `MODELS`, and that model's options; or one of `presets.PRESETS` and any
        options to replace the table's. A `ConfigDict` will do, and lists where tuples are meant.
        The number of classes and the size of the vocabulary are options like the others, filled in
        by the caller.

    Returns:
      The module, without variables.

    Raises:
      ValueError: if there is no such model or option, one is missing, or one has the wrong type or
        range.
    """
    # A copy, as the caller's section must keep its name.
    options = dict(spec)
    name = options.pop("name", None)
    if isinstance(name, str) and name in PRESETS:
        # What is given replaces the preset's value, as in `dict(name="resnet18", num_classes=2)`.
        options = PRESETS[name] | options
        name = options.pop("name")
    if not isinstance(name, str) or name not in MODELS:
        raise ValueError(
            f"no model {name!r}; there are {sorted(MODELS)}, and as published {sorted(PRESETS)}"
        )
    fields = {
        # Linen adds these two fields to every module; they are no options.
        f.name: f
        for f in dataclasses.fields(MODELS[name])
        if f.name not in ("parent", "name")
    }
    # Refused here, where the message can list the options that exist.
    if unknown := sorted(set(options) - set(fields)):
        raise ValueError(
            f"model {name!r} has no option {', '.join(map(repr, unknown))}; there are"
            f" {sorted(fields)}"
        )
    # A field without a default must be given, so that no size is chosen in silence.
    required = {key for key, field in fields.items() if field.default is dataclasses.MISSING}
    if missing := sorted(required - set(options)):
        raise ValueError(
            f"model {name!r} lacks {', '.join(map(repr, missing))}; it needs {sorted(required)}"
        )
    return MODELS[name](
        **{k: _checked(f"{name}.{k}", fields[k].type, value) for k, value in options.items()}
    )


def check(spec: Mapping[str, Any], predicts: str = "example") -> None:
    """Checks a config's section before the data is known.

    Args:
      spec: as for `build`, without what the data fills in.
      predicts: for what the model gives outputs.

    Raises:
      ValueError: as `build`, or if it can't give these outputs.
    """
    name = spec.get("name")
    cls = MODELS.get(_class_name(name))
    if cls is not None:
        check_predicts(str(name), predicts)
    known = {field.name for field in dataclasses.fields(cls)} if cls is not None else set()
    # Any number will do in place of those that the data gives.
    build({**dict.fromkeys(known & {"num_classes", "vocabulary_size"}, 2), **spec})


# Taken before anybody registers: only names of ours are protected.
_OWN = frozenset(MODELS)


def register(name: str, cls: type[nn.Module]) -> type[nn.Module]:
    """Makes a Linen module of one's own usable by its name in configs.

    Args:
      name: in configs, `dict(name=NAME, **options)`; the options are the module's fields.
        Registering it again replaces it, as when a config file is loaded twice.
      cls: the module's class. Its call takes `images`, or `input_ids` and `attention_mask` (and
        `token_type_ids` for pairs), and `train`; it returns logits `[B, K]`, `(logits, features)`
        or `ModelOutput`. A field `num_classes` is filled in, likewise `vocabulary_size` for text.

    Returns:
      The class.

    Raises:
      ValueError: if the name is that of a model of kd_jax, or `cls` is no Linen module.
    """
    # Replacing one of ours would change what older configs mean.
    if name in _OWN or name in PRESETS:
        raise ValueError(
            f"a model of your own can't be named {name!r}; kd_jax has one of that name"
        )
    if not name.isidentifier():
        raise ValueError(f"a model's name must be letters, digits and underscores, not {name!r}")
    if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
        raise ValueError(f"model {name!r} must be a Linen module's class, got {cls!r}")
    MODELS[name] = cls
    return cls


def _class_name(name: Any) -> str:
    return str(PRESETS.get(str(name), {}).get("name", name))


def check_predicts(name: str, predicts: str) -> None:
    """Refuses a model without such outputs, which the option `predicts` of others names.

    Raises:
      ValueError: naming those that do.
    """

    def gives(cls: Any) -> bool:
        kinds = {f.name: f.type for f in dataclasses.fields(cls)}.get("predicts")
        return predicts in typing.get_args(kinds)

    if predicts != "example" and not gives(MODELS[_class_name(name)]):
        able = sorted(each for each, cls in MODELS.items() if gives(cls))
        raise ValueError(
            f"model {name!r} has no outputs by {predicts}, which the task needs; {', '.join(able)}"
            f" have"
        )


def describe(module: nn.Module) -> dict[str, Any]:
    """Returns the section that `build` makes this module of: its family's `name` and every
    option.
    """
    # Found by class, so that a module need not know its own name.
    names = {constructor: name for name, constructor in MODELS.items()}
    fields = [f.name for f in dataclasses.fields(module) if f.name not in ("parent", "name")]
    return {"name": names[type(module)]} | {name: getattr(module, name) for name in fields}


def _checked(option: str, kind: Any, value: Any) -> Any:
    """Checks `value` as `kind`: bool, int (positive), float, a choice, or a tuple of ints."""
    # A config read from JSON has lists in place of tuples.
    if typing.get_origin(kind) is tuple:
        (inner, _) = typing.get_args(kind)
        if not isinstance(value, (list, tuple)):
            told = "positive whole numbers" if inner is int else "whole numbers, 0 or more"
            raise ValueError(f"{option} must be a tuple of {told}, got {value!r}")
        return tuple(_checked(option, inner, item) for item in value)
    if typing.get_origin(kind) is typing.Literal:
        choices = typing.get_args(kind)
        if not fits(kind, value):
            raise ValueError(f"{option} must be one of {list(choices)}, got {value!r}")
        return value
    if kind is bool:
        # 1 and 0 are refused, so that a number given to the wrong option is found.
        if not isinstance(value, bool):
            raise ValueError(f"{option} must be True or False, got {value!r}")
        return value
    return _checked_number(option, kind, value)


def _checked_number(option: str, kind: Any, value: Any) -> int | float:
    """Checks a positive int, a count, a positive float, or a dropout rate."""
    # These checks are by type, so a new model's options are checked without a line of its own.
    if kind == Count:
        kind, meaning, number, inside = (
            int,
            "a whole number, 0 or more",
            numbers.Integral,
            lambda x: 0 <= x < 2**31,
        )
    elif kind is int:
        meaning, number, inside = (
            "a positive whole number",
            numbers.Integral,
            lambda x: 0 < x < 2**31,
        )
    elif option.endswith(".dropout"):
        # A rate of 1 would drop everything, and scale what is left by a division by 0.
        meaning, number, inside = "a rate in [0, 1)", numbers.Real, lambda x: 0 <= x <= 1 - 2**-16
    else:
        meaning, number, inside = "a positive number", numbers.Real, lambda x: 0 < x < 2**63
    # bool is an int in Python, and True would pass as 1.
    fits: bool = isinstance(value, number) and not isinstance(value, bool) and inside(value)
    if not fits:
        raise ValueError(f"{option} must be {meaning}, got {value!r}")
    return kind(typing.cast(Any, value))
