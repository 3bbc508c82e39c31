"""Hugging Face's format of ModernBERT."""

from collections.abc import Mapping
from typing import Any

from kd_jax.models.weights.formats.weight_format import WeightFormat

KEYS = {
    "vocabulary_size": "vocab_size",
    "width": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "intermediate": "intermediate_size",
    "max_positions": "max_position_embeddings",
}
"""The module's option -> its key in config.json."""

ONLY = {
    "hidden_activation": "gelu",
    "classifier_activation": "gelu",
    "attention_bias": False,
    "mlp_bias": False,
    "norm_bias": False,
    "classifier_bias": False,
    "decoder_bias": True,
}
"""Keys of config.json -> the value that the module has."""

OUTER = {
    "word_embeddings": "embeddings.tok_embeddings",
    "embeddings_norm": "embeddings.norm",
    "final_norm": "final_norm",
    "head_dense": "head.dense",
    "head_norm": "head.norm",
    "classifier": "classifier",
    "language_dense": "head.dense",
    "language_bias": "decoder.bias",
}

BLOCK = {
    "attention_norm": "attn_norm",
    "qkv": "attn.Wqkv",
    "attention_output": "attn.Wo",
    "output_norm": "mlp_norm",
    "intermediate": "mlp.Wi",
    "output": "mlp.Wo",
}

ARCHITECTURES = {
    "example": "ModernBertForSequenceClassification",
    "token": "ModernBertForTokenClassification",
    "embedding": "ModernBertModel",
    "vocabulary": "ModernBertForMaskedLM",
}
"""`predicts` of a module -> architecture."""

HEADS = {
    "example": ("classifier", "head_dense", "head_norm"),
    "token": ("classifier", "head_dense", "head_norm"),
    "embedding": (),
    "vocabulary": ("head_dense", "head_norm", "language_bias"),
}

GLOBAL, LOCAL = "full_attention", "sliding_attention"


def make(predicts: str = "example") -> WeightFormat:
    """Makes the layout of networks that predict in some way."""

    def names(layer: str) -> tuple[str, ...]:
        if "/" not in layer:
            return (OUTER[layer],)
        number, _, inner = layer.removeprefix("block_").partition("/")
        return (f"layers.{number}.{BLOCK[inner]}",)

    return WeightFormat(
        names,
        HEADS[predicts],
        prefix="model.",
        outside=("classifier", "head_dense", "head_norm", "language_bias"),
        unused=("decoder.", "head."),
        alone=("language_bias",),
        options=_options,
        config=_config,
        architecture=ARCHITECTURES[predicts],
        bare=ARCHITECTURES["embedding"],
        others={other: make(other) for other in ARCHITECTURES if other != "example"}
        if predicts == "example"
        else {},
    )


def _options(config: Mapping[str, Any]) -> dict[str, Any]:
    """Turns config.json into options; refuses a network that the module isn't."""
    for key, value in ONLY.items():
        if config.get(key, value) != value:
            raise ValueError(f"config.json has {key} {config[key]!r}; only {value!r} is supported")
    if missing := sorted(key for key in KEYS.values() if key not in config):
        raise ValueError(f"config.json lacks {missing}")
    options: dict[str, Any] = {option: config[key] for option, key in KEYS.items()}
    pooling = config.get("classifier_pooling", "cls")
    if pooling not in ("cls", "mean"):
        raise ValueError(f"config.json has classifier_pooling {pooling!r}; cls and mean are known")
    return (
        {"name": "modernbert"}
        | options
        | {
            "dropout": float(config.get("mlp_dropout", 0.0)),
            "head_pooling": "mean" if pooling == "mean" else "first",
            "global_blocks": _global_blocks(config),
            "window": int(config.get("local_attention", 128)) // 2,
            "global_theta": _theta(config, GLOBAL, "global_rope_theta", 160_000.0),
            "local_theta": _theta(config, LOCAL, "local_rope_theta", 10_000.0),
            "layer_norm_epsilon": float(config.get("norm_eps", 1e-5)),
        }
    )


def _global_blocks(config: Mapping[str, Any]) -> tuple[int, ...]:
    layers = config["num_hidden_layers"]
    # Before version 5 of transformers, every n-th block.
    every = config.get("global_attn_every_n_layers", 3)
    kinds = config.get("layer_types") or [LOCAL if i % every else GLOBAL for i in range(layers)]
    if len(kinds) != layers or not {*kinds} <= {GLOBAL, LOCAL}:
        raise ValueError(f"config.json has layer_types {kinds} for {layers} layers")
    return tuple(i for i, kind in enumerate(kinds) if kind == GLOBAL)


def _theta(config: Mapping[str, Any], kind: str, older: str, default: float) -> float:
    given = (config.get("rope_parameters") or {}).get(kind) or {}
    if given.get("rope_type", "default") != "default" or config.get("rope_scaling"):
        raise ValueError("config.json stretches the rotary positions, which isn't supported")
    # The older key may be null: then local blocks are as the global ones.
    theta = given.get("rope_theta", config.get(older, default))
    return float(config.get("global_rope_theta", 160_000.0) if theta is None else theta)


def _config(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options -> config.json; ValueError where the published architecture has no such option."""
    if options["pooling"] != "cls":
        raise ValueError(
            f"pooling {options['pooling']!r} has no counterpart in {ARCHITECTURES['example']}, only"
            f" 'cls'"
        )
    found = {key: options[option] for option, key in KEYS.items()}
    layers, everywhere = options["layers"], options["global_blocks"]
    thetas = {GLOBAL: options["global_theta"], LOCAL: options["local_theta"]}
    rates = ("embedding_dropout", "attention_dropout", "mlp_dropout", "classifier_dropout")
    return (
        found
        | ONLY
        | dict.fromkeys(rates, options["dropout"])
        | {
            "classifier_pooling": "mean" if options["head_pooling"] == "mean" else "cls",
            "layer_types": [GLOBAL if i in everywhere else LOCAL for i in range(layers)],
            "local_attention": 2 * options["window"],
            "rope_parameters": {
                kind: {"rope_type": "default", "rope_theta": theta}
                for kind, theta in thetas.items()
            },
            "norm_eps": options["layer_norm_epsilon"],
        }
    )
