"""Hugging Face's formats of BERT, RoBERTa, DistilBERT, ELECTRA and MPNet."""

from collections.abc import Mapping
from typing import Any

from kd_jax.models.text.bert import DISTANCES
from kd_jax.models.weights.formats.weight_format import LANGUAGE_HEAD, WeightFormat

KEYS = {
    "vocabulary_size": "vocab_size",
    "width": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "intermediate": "intermediate_size",
    "max_positions": "max_position_embeddings",
    "type_vocabulary": "type_vocab_size",
    "dropout": "hidden_dropout_prob",
    "layer_norm_epsilon": "layer_norm_eps",
}
"""The encoder's option -> its key in config.json."""

DISTILBERT_KEYS = {
    "vocabulary_size": "vocab_size",
    "width": "dim",
    "layers": "n_layers",
    "heads": "n_heads",
    "intermediate": "hidden_dim",
    "max_positions": "max_position_embeddings",
    "dropout": "dropout",
}

MPNET_KEYS = {option: key for option, key in KEYS.items() if option != "type_vocabulary"}

EMBEDDINGS = {
    "word_embeddings": "embeddings.word_embeddings",
    "position_embeddings": "embeddings.position_embeddings",
    "type_embeddings": "embeddings.token_type_embeddings",
    "embeddings_norm": "embeddings.LayerNorm",
    "embeddings_projection": "embeddings_project",
    "relative_bias": "encoder.relative_attention_bias",
}

BLOCK = {
    "qkv": ("attention.self.query", "attention.self.key", "attention.self.value"),
    "attention_output": ("attention.output.dense",),
    "attention_norm": ("attention.output.LayerNorm",),
    "intermediate": ("intermediate.dense",),
    "output": ("output.dense",),
    "output_norm": ("output.LayerNorm",),
}

DISTILBERT_BLOCK = {
    "qkv": ("attention.q_lin", "attention.k_lin", "attention.v_lin"),
    "attention_output": ("attention.out_lin",),
    "attention_norm": ("sa_layer_norm",),
    "intermediate": ("ffn.lin1",),
    "output": ("ffn.lin2",),
    "output_norm": ("output_layer_norm",),
}

MPNET_BLOCK = BLOCK | {
    "qkv": ("attention.attn.q", "attention.attn.k", "attention.attn.v"),
    "attention_output": ("attention.attn.o",),
    "attention_norm": ("attention.LayerNorm",),
}

HEADS = {
    "bert": {
        "pooler": "pooler.dense",
        "classifier": "classifier",
        "language_dense": "cls.predictions.transform.dense",
        "language_norm": "cls.predictions.transform.LayerNorm",
        "language_bias": "cls.predictions.bias",
    },
    "roberta": {
        "pooler": "classifier.dense",
        "classifier": "classifier.out_proj",
        "language_dense": "lm_head.dense",
        "language_norm": "lm_head.layer_norm",
        "language_bias": "lm_head.bias",
    },
    "mpnet": {
        "pooler": "classifier.dense",
        "classifier": "classifier.out_proj",
        "language_dense": "lm_head.dense",
        "language_norm": "lm_head.layer_norm",
        "language_bias": "lm_head.bias",
    },
    "distilbert": {
        "pooler": "pre_classifier",
        "classifier": "classifier",
        "language_dense": "vocab_transform",
        "language_norm": "vocab_layer_norm",
        "language_bias": "vocab_projector.bias",
    },
    "electra": {
        "pooler": "classifier.dense",
        "classifier": "classifier.out_proj",
        "language_dense": "generator_predictions.dense",
        "language_norm": "generator_predictions.LayerNorm",
        "language_bias": "generator_lm_head.bias",
    },
}

UNUSED = {
    "bert": ("pooler.", "cls.", "embeddings.position_ids"),
    "mpnet": ("pooler.", "lm_head.", "embeddings.position_ids"),
    "roberta": ("pooler.", "lm_head.", "embeddings.position_ids"),
    "distilbert": ("vocab_", "embeddings.position_ids", "pre_classifier."),
    "electra": ("generator_", "discriminator_predictions.", "embeddings.position_ids"),
}
"""Heads of other tasks, and what tied weights make superfluous."""

ARCHITECTURES = {
    "bert": "BertForSequenceClassification",
    "mpnet": "MPNetForSequenceClassification",
    "roberta": "RobertaForSequenceClassification",
    "distilbert": "DistilBertForSequenceClassification",
    "electra": "ElectraForSequenceClassification",
}

TOKEN_ARCHITECTURES = {
    "bert": "BertForTokenClassification",
    "mpnet": "MPNetForTokenClassification",
    "roberta": "RobertaForTokenClassification",
    "distilbert": "DistilBertForTokenClassification",
    "electra": "ElectraForTokenClassification",
}
"""Those that classify each token; their classifier is one dense layer, whatever the family's."""

BARE = {
    "bert": "BertModel",
    "mpnet": "MPNetModel",
    "roberta": "RobertaModel",
    "distilbert": "DistilBertModel",
    "electra": "ElectraModel",
}


LANGUAGE_ARCHITECTURES = {
    "bert": "BertForMaskedLM",
    "mpnet": "MPNetForMaskedLM",
    "roberta": "RobertaForMaskedLM",
    "distilbert": "DistilBertForMaskedLM",
    "electra": "ElectraForMaskedLM",
}

SIZES = {"distilbert": DISTILBERT_KEYS, "mpnet": MPNET_KEYS}
"""Families whose config.json has other keys than BERT's, and no token types."""

PADDED = ("mpnet", "roberta")
"""Families whose table of positions begins with padding's."""

ARCHITECTURES_BY = {
    "example": ARCHITECTURES,
    "token": TOKEN_ARCHITECTURES,
    "embedding": BARE,
    "vocabulary": LANGUAGE_ARCHITECTURES,
}
"""`predicts` of a module -> family -> architecture."""


def make(family: str, predicts: str = "example") -> WeightFormat:
    """Makes the layout of one of `encoder.FAMILIES`.

    Args:
      family: the family.
      predicts: for what the classifier gives logits.
    """
    distilled, by_token = family == "distilbert", predicts == "token"
    blocks = {"distilbert": DISTILBERT_BLOCK, "mpnet": MPNET_BLOCK}
    outer, block = EMBEDDINGS | HEADS[family], blocks.get(family, BLOCK)
    if by_token:
        outer |= {"classifier": "classifier"}
    stack = "transformer.layer" if distilled else "encoder.layer"

    # Published blocks keep query, key and value apart; ours is one product of all three.
    def names(layer: str) -> tuple[str, ...]:
        if "/" not in layer:
            return (outer[layer],)
        number, _, inner = layer.removeprefix("block_").partition("/")
        return tuple(f"{stack}.{number}.{name}" for name in block[inner])

    # BERT's pooler belongs to the pretrained network; the others' is part of the classifier and
    # comes with the task.
    heads = ("classifier",) if family == "bert" or by_token else ("classifier", "pooler")
    if predicts in ("embedding", "vocabulary"):
        heads = LANGUAGE_HEAD if predicts == "vocabulary" else ()
    # Heads stand beside the network, so their names have no prefix.
    outside = tuple(
        layer for layer in HEADS[family] if layer in heads or layer.startswith("language")
    )
    return WeightFormat(
        names,
        heads,
        prefix=f"{family}.",
        outside=outside,
        unused=UNUSED[family],
        alone=("language_bias",),
        options=lambda config: _options(family, config),
        config=lambda options: _config(family, options),
        architecture=ARCHITECTURES_BY[predicts][family],
        bare=BARE[family],
        others={other: make(family, other) for other in ARCHITECTURES_BY if other != "example"}
        if predicts == "example"
        else {},
    )


def _options(family: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Turns config.json into options; refuses a network that the encoder isn't."""
    # Without a check another activation would load and give other logits without an error.
    only = {
        "hidden_act": "gelu",
        "activation": "gelu",
        "position_embedding_type": "absolute",
        "is_decoder": False,
    }
    if family in PADDED:
        only["pad_token_id"] = 1  # The position table begins after its row.
    if family == "mpnet":
        only["relative_attention_num_buckets"] = 2 * len(DISTANCES)
    for key, value in only.items():
        if config.get(key, value) != value:
            raise ValueError(f"config.json has {key} {config[key]!r}; only {value!r} is supported")
    keys = SIZES.get(family, KEYS)
    # A default for a missing size would build a network that the tensors don't fit.
    if missing := sorted(key for key in keys.values() if key not in config):
        raise ValueError(f"config.json lacks {missing}")
    options: dict[str, Any] = {option: config[key] for option, key in keys.items()}
    if family in SIZES:
        # DistilBERT and MPNet dropped the token types.
        options["type_vocabulary"] = 0
    if family in PADDED:
        # Their table of positions begins at 2; the first rows belong to padding.
        options["max_positions"] -= 2
    if family == "electra":
        # Small ELECTRAs have narrow embeddings and a projection to the blocks' width.
        width = config.get("embedding_size", options["width"])
        options["embedding_width"] = 0 if width == options["width"] else width
    return {"name": "encoder", "family": family} | options


def _config(family: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options -> config.json; ValueError where the published architecture has no such option."""
    # What the architecture can't say would be lost in the folder, and its logits wrong.
    if options["pooling"] != "cls":
        raise ValueError(
            f"pooling {options['pooling']!r} has no counterpart in {ARCHITECTURES[family]}, only"
            f" 'cls'"
        )
    if family != "electra" and options["embedding_width"] not in (0, options["width"]):
        raise ValueError(
            f"embedding_width {options['embedding_width']} has no counterpart in"
            f" {ARCHITECTURES[family]}"
        )
    if family not in SIZES and not options["type_vocabulary"]:
        raise ValueError(
            f"type_vocabulary 0 has no counterpart in {ARCHITECTURES[family]}, which adds at least"
            f" one"
        )
    keys = SIZES.get(family, KEYS)
    config = {key: options[option] for option, key in keys.items()}
    if family == "distilbert":
        if options["type_vocabulary"] or options["layer_norm_epsilon"] != 1e-12:
            raise ValueError(
                f"{ARCHITECTURES[family]} has no token types and a layer_norm_epsilon of 1e-12"
            )
        return config | {
            "attention_dropout": options["dropout"],
            "seq_classif_dropout": options["dropout"],
        }
    if family == "mpnet" and options["type_vocabulary"]:
        raise ValueError(f"{ARCHITECTURES[family]} has no token types")
    if family in PADDED:
        # Positions count the tokens that aren't this one, whatever the tokenizer pads with.
        config |= {
            "pad_token_id": 1,
            "max_position_embeddings": config["max_position_embeddings"] + 2,
        }
    if family == "electra":
        config["embedding_size"] = options["embedding_width"] or options["width"]
    # Two keys there for the one rate that our encoder has.
    return config | {"attention_probs_dropout_prob": options["dropout"]}
