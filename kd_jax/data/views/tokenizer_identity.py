"""What a tokenizer is, apart from where it lies: equal ones give equal ids for every text."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from kd_jax.data.views.tokenizer_file import read_tokenizer

NOT_PART = ("version", "truncation", "padding")
"""Sections of tokenizer.json that a view decides itself."""


def identity(tokenizer: Tokenizer) -> str:
    """Returns the SHA-256 of all that tells which ids a text gets."""
    content = json.dumps(_sections(tokenizer), sort_keys=True)
    return f"sha256:{hashlib.sha256(content.encode()).hexdigest()}"


def difference_to_folder(ours: Tokenizer, folder: Path) -> str | None:
    """Compares a tokenizer with the one that lies beside a model's weights.

    Args:
      ours: the one that texts are read with.
      folder: the model's: tokenizer.json, else vocab.json or vocab.txt, of which only the
        vocabulary can be compared.

    Returns:
      What differs; None where nothing does, or the folder has none of these files.

    Raises:
      ValueError: if the folder's is damaged.
    """
    try:
        if (folder / "tokenizer.json").is_file():
            theirs = read_tokenizer(folder / "tokenizer.json")
            if identity(ours) == identity(theirs):
                return None
            left, right = _sections(ours), _sections(theirs)
            # The vocabulary is what people recognise, so it is named before the rest.
            found = _vocabulary_difference(ours.get_vocab(), theirs.get_vocab())
            return found or ", ".join(
                key for key in sorted(left.keys() | right.keys()) if left.get(key) != right.get(key)
            )
        if (folder / "vocab.json").is_file():
            vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
        elif (folder / "vocab.txt").is_file():
            lines = (folder / "vocab.txt").read_text(encoding="utf-8").split("\n")
            vocabulary = {line.rstrip("\r"): number for number, line in enumerate(lines) if line}
        else:
            return None
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"the tokenizer in {folder} can't be read: {error}") from None
    return _vocabulary_difference(ours.get_vocab(with_added_tokens=False), vocabulary)


def _sections(tokenizer: Tokenizer) -> dict[str, Any]:
    found = json.loads(tokenizer.to_str())
    return {key: value for key, value in found.items() if key not in NOT_PART}


def _vocabulary_difference(ours: Mapping[str, int], theirs: Mapping[str, int]) -> str | None:
    differing = [token for token, number in theirs.items() if ours.get(token) != number]
    differing += [token for token in ours if token not in theirs]
    if not differing:
        return None
    token = min(differing, key=lambda each: theirs.get(each, ours.get(each, 0)))
    numbers = [
        "no id" if vocabulary.get(token) is None else f"id {vocabulary[token]}"
        for vocabulary in (ours, theirs)
    ]
    return (
        f"{len(differing)} tokens have other ids: {token!r} has {numbers[0]} here and {numbers[1]}"
        f" there"
    )
