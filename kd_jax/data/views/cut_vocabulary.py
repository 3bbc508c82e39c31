"""Cuts a tokenizer's vocabulary to the tokens of some texts; a student's embedding so is small."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from kd_jax.data.source import texts_of

KINDS = ("WordPiece", "WordLevel")
"""Models of tokenizers that still read any text when tokens are left out."""

_CHUNK = 4_096


def cut_vocabulary(tokenizer: Tokenizer, texts: Sequence) -> Tokenizer:
    """Returns a tokenizer with those tokens alone that some texts have.

    Those texts have the same tokens as before. Special tokens stay, and single characters, of which
    words of other texts are spelled. Tokens keep their order, and their ids close the gaps.

    Args:
      tokenizer: of one of `KINDS`.
      texts: [N] texts or pairs.

    Raises:
      ValueError: for a tokenizer of another kind.
    """
    content = json.loads(tokenizer.to_str())
    model = content["model"]
    if model["type"] not in KINDS:
        raise ValueError(
            f"view.vocabulary='training' is for tokenizers with {' or '.join(KINDS)}, such as"
            f" BERT's; this one has {model['type']}"
        )
    plain = Tokenizer.from_str(tokenizer.to_str())
    plain.no_padding()
    plain.no_truncation()
    used = np.zeros(max(tokenizer.get_vocab().values()) + 1, bool)
    flat = list(_flatten(texts))
    for start in range(0, len(flat), _CHUNK):
        for encoding in plain.encode_batch(flat[start : start + _CHUNK]):
            used[encoding.ids] = True
    used[[token["id"] for token in content["added_tokens"]]] = True
    prefix = model.get("continuing_subword_prefix") or ""
    kept = {
        token: number
        for token, number in sorted(model["vocab"].items(), key=lambda item: item[1])
        if used[number] or token == model["unk_token"] or len(token.removeprefix(prefix)) == 1
    }
    # Added tokens stand beside the model's own vocabulary, or in it.
    old = sorted({*kept.values(), *(token["id"] for token in content["added_tokens"])})
    new = {number: place for place, number in enumerate(old)}
    model["vocab"] = {token: new[number] for token, number in kept.items()}
    for token in content["added_tokens"]:
        token["id"] = new[token["id"]]
    _renumber(content.get("post_processor"), new)
    if content.get("padding"):
        content["padding"]["pad_id"] = new[content["padding"]["pad_id"]]
    return Tokenizer.from_str(json.dumps(content))


def old_ids(cut: Tokenizer, whole: Tokenizer) -> np.ndarray:
    """Returns [V] int, for each id of a cut vocabulary the one that its token has in the whole."""
    tokens = sorted(cut.get_vocab().items(), key=lambda item: item[1])
    return np.array([whole.token_to_id(token) for token, _ in tokens])


def _renumber(processor: Any, new: dict[int, int]) -> None:
    """Changes, in place, the ids of the special tokens that a processor puts around a text."""
    if processor is None:
        return
    for each in processor.get("processors", ()):
        _renumber(each, new)
    # Templates list ids by token; BERT's own processor has a pair of token and id.
    special = processor.get("special_tokens")
    for token in special.values() if isinstance(special, dict) else ():
        token["ids"] = [new[number] for number in token["ids"]]
    for key in ("sep", "cls"):
        if isinstance(processor.get(key), list):
            processor[key][1] = new[processor[key][1]]


def _flatten(texts: Sequence) -> Iterator[str]:
    for text in texts:
        yield from texts_of(text)
