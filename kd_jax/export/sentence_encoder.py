"""A student that pools its tokens, as sentence-transformers has it, with its classifier beside."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from kd_jax.core.json_files import write_json
from kd_jax.models.weights.formats import HEAD
from kd_jax.models.weights.formats.weight_format import WeightFormat


def split(
    layout: WeightFormat, tensors: Mapping[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Splits a student's tensors, by their full names, into the bare network's and the head's.

    The head is `{}` where what is pooled is the output.
    """
    network = {
        name.removeprefix(layout.prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(layout.prefix)
    }
    # These classes have a pooler that nothing reads; where a folder has none, they draw a random
    # one and warn.
    if layout.bare in ("BertModel", "RobertaModel"):
        width = network["embeddings.LayerNorm.weight"].shape[0]
        network["pooler.dense.weight"] = np.zeros((width, width), np.float32)
        network["pooler.dense.bias"] = np.zeros(width, np.float32)
    if not layout.heads:
        return network, {}
    (kernel,) = layout.sources("params/classifier/kernel")
    (bias,) = layout.sources("params/classifier/bias")
    return network, {"weight": tensors[kernel], "bias": tensors[bias]}


def write(
    target: Path, head: Mapping[str, np.ndarray], pooling: str, max_length: int, width: int
) -> None:
    """Writes what sentence-transformers reads beside the network, and the head.

    Args:
      target: the folder.
      head: `weight` [K, D] and `bias` [K], or nothing.
      pooling: "mean" or "first".
      max_length: in tokens.
      width: D.
    """
    kinds = {"": "Transformer", "1_Pooling": "Pooling"}
    modules = [
        {
            "idx": i,
            "name": str(i),
            "path": path,
            "type": f"sentence_transformers.models.{kind}",
        }
        for i, (path, kind) in enumerate(kinds.items())
    ]
    write_json(target / "modules.json", modules)
    settings = {"max_seq_length": max_length, "do_lower_case": False}
    write_json(target / "sentence_bert_config.json", settings)
    (target / "1_Pooling").mkdir(exist_ok=True)
    # In the words of version 2, which all later versions read.
    write_json(
        target / "1_Pooling" / "config.json",
        {
            "word_embedding_dimension": width,
            "pooling_mode_cls_token": pooling == "first",
            "pooling_mode_mean_tokens": pooling == "mean",
            "pooling_mode_max_tokens": False,
            "pooling_mode_mean_sqrt_len_tokens": False,
        },
    )
    if head:
        save_file(dict(head), target / HEAD)


def classifier(target: Path, model: Any, pooling: str) -> Callable[[Mapping[str, Any]], Any]:
    """Returns what computes logits `[B, K]` of PyTorch inputs, by the bare network and the head;
    without a head the embedding `[B, D]`."""
    from safetensors.torch import load_file

    head = load_file(target / HEAD) if (target / HEAD).is_file() else None

    def run(given: Mapping[str, Any]) -> Any:
        tokens = model(**given).last_hidden_state
        mask = given["attention_mask"][..., None].to(tokens.dtype)
        pooled = tokens[:, 0] if pooling == "first" else (tokens * mask).sum(1) / mask.sum(1)
        return pooled if head is None else pooled @ head["weight"].T + head["bias"]

    return run
