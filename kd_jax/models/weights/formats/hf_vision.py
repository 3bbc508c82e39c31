"""Hugging Face's formats of ViT, DeiT and ResNet."""

from collections.abc import Mapping
from typing import Any

from kd_jax.models.image.resnet import EXPANSION
from kd_jax.models.weights.formats.weight_format import WeightFormat

KEYS = {
    "image_size": "image_size",
    "patch": "patch_size",
    "width": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "intermediate": "intermediate_size",
    "dropout": "hidden_dropout_prob",
    "layer_norm_epsilon": "layer_norm_eps",
}
"""The vision transformer's option -> its key in config.json."""

OUTER = {
    "class_token": "embeddings.cls_token",
    "distillation_token": "embeddings.distillation_token",
    "positions": "embeddings.position_embeddings",
    "patches": "embeddings.patch_embeddings.projection",
    "norm": "layernorm",
    "classifier": "classifier",
    "distillation_classifier": "distillation_classifier",
}

BLOCK = {
    "qkv": ("attention.attention.query", "attention.attention.key", "attention.attention.value"),
    "attention_output": ("attention.output.dense",),
    "attention_norm": ("layernorm_before",),
    "intermediate": ("intermediate.dense",),
    "output": ("output.dense",),
    "output_norm": ("layernorm_after",),
}


def make_transformer(kind: str) -> WeightFormat:
    """Makes the layout of "vit", or of "deit", with a distillation token and two classifiers."""
    distilled = kind == "deit"
    # With two classifiers the published name says which token each one reads.
    outer = OUTER | ({"classifier": "cls_classifier"} if distilled else {})

    def names(layer: str) -> tuple[str, ...]:
        if "/" not in layer:
            return (outer[layer],)
        number, _, inner = layer.removeprefix("block_").partition("/")
        return tuple(f"encoder.layer.{number}.{name}" for name in BLOCK[inner])

    heads = ("classifier", "distillation_classifier") if distilled else ("classifier",)
    return WeightFormat(
        names,
        heads,
        prefix=f"{kind}.",
        outside=heads,
        # They serve pretraining, and no classifier reads them.
        unused=("pooler.", "embeddings.mask_token"),
        alone=("class_token", "distillation_token", "positions"),
        options=lambda config: _transformer_options(config, distillation=distilled),
        config=_transformer_config,
        architecture="DeiTForImageClassificationWithTeacher"
        if distilled
        else "ViTForImageClassification",
    )


def _transformer_options(config: Mapping[str, Any], *, distillation: bool) -> dict[str, Any]:
    # Other values would load and give other logits without an error.
    _require(config, {"hidden_act": "gelu", "qkv_bias": True})
    if missing := sorted(key for key in KEYS.values() if key not in config):
        raise ValueError(f"config.json lacks {missing}")
    options = {option: config[key] for option, key in KEYS.items()}
    return {"name": "vit", "distillation": distillation} | options


def _transformer_config(options: Mapping[str, Any]) -> dict[str, Any]:
    config = {key: options[option] for option, key in KEYS.items()}
    return config | {"attention_probs_dropout_prob": options["dropout"], "qkv_bias": True}


def _require(config: Mapping[str, Any], only: Mapping[str, Any]) -> None:
    for key, value in only.items():
        if config.get(key, value) != value:
            raise ValueError(f"config.json has {key} {config[key]!r}; only {value!r} is supported")


def make_resnet() -> WeightFormat:
    """Makes the layout of "resnet", with the stride in the 3x3 convolution."""

    def names(layer: str) -> tuple[str, ...]:
        outer = {
            "conv": "embedder.embedder.convolution",
            "norm": "embedder.embedder.normalization",
            "classifier": "classifier.1",
        }
        if layer in outer:
            return (outer[layer],)
        block, _, inner = layer.partition("/")
        # Our blocks are named "stage_STAGE_NUMBER", and in them "conv_INDEX" or "norm_INDEX".
        _, stage, number = block.split("_")
        kind, index = inner.split("_")
        place = "shortcut" if index == "shortcut" else f"layer.{index}"
        what = {"conv": "convolution", "norm": "normalization"}[kind]
        return (f"encoder.stages.{stage}.layers.{number}.{place}.{what}",)

    return WeightFormat(
        names,
        ("classifier",),
        prefix="resnet.",
        outside=("classifier",),
        options=_resnet_options,
        config=_resnet_config,
        architecture="ResNetForImageClassification",
    )


def _resnet_options(config: Mapping[str, Any]) -> dict[str, Any]:
    _require(
        config,
        {
            "hidden_act": "relu",
            "downsample_in_first_stage": False,
            "downsample_in_bottleneck": False,
        },
    )
    keys = ("embedding_size", "hidden_sizes", "depths", "layer_type")
    if missing := sorted(key for key in keys if key not in config):
        raise ValueError(f"config.json lacks {missing}")
    bottleneck = config["layer_type"] == "bottleneck"
    # Published sizes are those of a block's result; ours are those of its 3x3 convolution.
    widths = tuple(size // EXPANSION if bottleneck else size for size in config["hidden_sizes"])
    return {
        "name": "resnet",
        "stem": config["embedding_size"],
        "blocks": tuple(config["depths"]),
        "widths": widths,
        "bottleneck": bottleneck,
    }


def _resnet_config(options: Mapping[str, Any]) -> dict[str, Any]:
    # The published class always has the 7x7 convolution and the pool.
    if options["entry"] != "imagenet":
        raise ValueError(
            f"entry {options['entry']!r} has no counterpart in ResNetForImageClassification"
        )
    bottleneck = options["bottleneck"]
    sizes = [width * EXPANSION if bottleneck else width for width in options["widths"]]
    return {
        "embedding_size": options["stem"],
        "hidden_sizes": sizes,
        "depths": list(options["blocks"]),
        "layer_type": "bottleneck" if bottleneck else "basic",
        "downsample_in_first_stage": False,
        "downsample_in_bottleneck": False,
    }
