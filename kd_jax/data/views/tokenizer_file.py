"""Opens a tokenizer.json that somebody else may have made."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

LARGEST_FILE = 256 * 1024**2
"""Bytes; the largest published ones, of a quarter of a million tokens, take 20 million."""

LARGEST_ID = 2**24
"""No published vocabulary is as large, and a table of embeddings has a row for each id."""


def read_tokenizer(path: Path) -> Tokenizer:
    """Reads a tokenizer.

    Its numbers are checked first: the library, which is written in Rust, ends the whole process at
    some of them.

    Args:
      path: of the tokenizer.json.

    Raises:
      ValueError: naming the file, if it is absent, damaged, too large or has impossible ids.
    """
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise ValueError(f"it is larger than {LARGEST_FILE:,} bytes")
        text = path.read_text(encoding="utf-8")
        for token, number in _ids(json.loads(text)):
            whole = isinstance(number, int) and not isinstance(number, bool)
            if not whole or not 0 <= number < LARGEST_ID:
                raise ValueError(f"the id of {token!r} is {number!r}")
        return Tokenizer.from_str(text)
    except (KeyboardInterrupt, SystemExit):
        raise
    # The library raises plain Exceptions, and a panic of Rust is not even one of these.
    except BaseException as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ValueError(
            f"the tokenizer {path} can't be read: {reason.splitlines()[0][:300]}"
        ) from None


def _ids(content: Any) -> Iterator[tuple[str, Any]]:
    """Yields the tokens and ids of a tokenizer.json's content."""
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise ValueError("it holds no model")
    for added in content.get("added_tokens") or ():
        yield str(added.get("content")), added.get("id")
    vocabulary = content["model"].get("vocab")
    # A unigram model lists pairs of token and score, whose places are the ids.
    yield from vocabulary.items() if isinstance(vocabulary, dict) else ()
    padding = content.get("padding") or {}
    if "pad_id" in padding:
        yield "padding", padding["pad_id"]
