"""One checksum over a JSON file that others rely on, and over a model's tokenizer, so that neither
changes unnoticed."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kd_jax.core.json_files import finite

KEY = "seal"
TOKENIZER = "tokenizer.json"


def seal(description: Mapping[str, Any], tokenizer: str | None = None) -> dict[str, Any]:
    """Adds a description's checksum to it.

    The fingerprint of the weights stands in the description. So names of classes, tokens and
    numbers can't change apart from one another.

    Args:
      description: JSON.
      tokenizer: the content of `tokenizer.json`; None where the model has none.

    Returns:
      The description and its "seal".
    """
    return {**description, KEY: _checksum(description, tokenizer)}


def problem(folder: Path, name: str, description: Mapping[str, Any]) -> str | None:
    """Says what differs from its checksum.

    Args:
      folder: the model's.
      name: of the description's file, for the message.
      description: as it was read.

    Returns:
      One line; None where all is as it was written, or was written by a version without seals.

    Raises:
      OSError: if the tokenizer can't be read.
      UnicodeDecodeError: if it isn't text.
    """
    if KEY not in description:
        return None
    tokenizer = folder / TOKENIZER
    text = tokenizer.read_text(encoding="utf-8") if tokenizer.exists() else None
    if _checksum(description, text) == description[KEY]:
        return None
    files = f"{name} or {TOKENIZER}" if text is not None else name
    return f"{files} was changed after it was written: it differs from its checksum"


def _checksum(description: Mapping[str, Any], tokenizer: str | None) -> str:
    rest = {key: value for key, value in description.items() if key != KEY}
    # As it comes back from JSON, where a tuple is a list and NaN is null.
    plain = json.loads(json.dumps(finite([rest, tokenizer])))
    # Sorted, because the order of keys says nothing; as text, since floats are exact in JSON.
    content = json.dumps(plain, sort_keys=True)
    return f"sha256:{hashlib.sha256(content.encode()).hexdigest()}"
