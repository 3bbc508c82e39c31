"""Checks one text for what makes it unfit to learn from, and repairs what can be repaired."""

import re
import unicodedata
from collections.abc import Callable

from kd_jax.data.cleaning.homoglyphs import has_mixed_word, unmix
from kd_jax.data.cleaning.markup import has_markup, strip_markup

Text = str | bytes | tuple[str | bytes, ...]
"""One text, or a pair, decoded or not."""

# Printable ASCII with neither "&" nor "<": most English texts match, and need no further check.
_PLAIN = re.compile("[\t\n\r\x20-\x25\x27-\x3b\x3d-\x7e]*")
_BROKEN = re.compile("[\ud800-\udfff\ufffd]")
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufdd0-\ufdef\ufff9-\ufffb\ufffe\uffff]")
_OVERRIDE = re.compile("[\u202a-\u202e\u2066-\u2069]")
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u2060-\u2065"
    "\u206a-\u206f\u3164\ufeff\uffa0"
    "\U000e0000-\U000e007f]"
)
_RIGHT_TO_LEFT = re.compile(
    "[\u0590-\u08ff\ufb1d-\ufdcf\ufdf0-\ufdff\ufe70-\ufefc\U00010800-\U00010fff]"
)
_SPACE = re.compile(r"\s+")
# How the Unicode names of characters begin after which a joiner does nothing.
_UNJOINED = (
    "LATIN",
    "CYRILLIC",
    "GREEK",
    "CJK",
    "HIRAGANA",
    "KATAKANA",
    "HANGUL",
    "COMBINING",
    "MODIFIER",
)


def decode(text: str | bytes) -> str:
    """Decodes bytes as UTF-8; those that aren't UTF-8 become lone surrogates."""
    return text.decode("utf-8", "surrogateescape") if isinstance(text, bytes) else text


def check(text: Text, *, max_characters: int | None = None) -> list[str]:
    """Returns the reasons for which a text shouldn't be learned from.

    Args:
      text: a text or a pair of texts.
      max_characters: the most that each may have; None: any number.

    Returns:
      Those that hold, in this order, of "invalid_utf8" (bytes that don't decode, lone surrogates,
      U+FFFD), "control_character" (all but tab and line ends), "bidirectional_override"
      (embeddings, overrides and isolates), "zero_width" (joiners and direction marks only where no
      script needs them), "mixed_scripts" (look-alike letters inside a word), "markup" (HTML tags
      and character references), "empty" and "too_long", which stands alone.
    """
    if isinstance(text, tuple):
        found = {reason for part in text for reason in check(part, max_characters=max_characters)}
        return [reason for reason in REASONS if reason in found]
    text = decode(text)
    if max_characters is not None and len(text) > max_characters:
        # The cost of a hostile text is bounded by not looking into it.
        return ["too_long"]
    if _PLAIN.fullmatch(text):
        return [] if text.strip() else ["empty"]
    reasons = [name for name, holds in _CHECKS.items() if holds(text)]
    if not _take_out(text).strip():
        reasons.append("empty")
    return reasons


def is_nfc(text: Text) -> bool:
    """Tells whether a text, or both of a pair, is in Unicode's normal form C."""
    if isinstance(text, tuple):
        return all(is_nfc(part) for part in text)
    return text.isascii() or unicodedata.is_normalized("NFC", decode(text))


def repair(text: Text) -> Text:
    """Returns a text in NFC without control, bidirectional and zero-width characters and markup.

    Look-alike letters become those of the script that their word is written in. Every space left by
    markup is single. `check` tells what is still wrong: broken encoding, an empty or too long text.
    """
    if isinstance(text, tuple):
        return tuple(repair(part) for part in text)  # pyright: ignore[reportReturnType]
    text = decode(text)
    if _PLAIN.fullmatch(text):
        return text
    text = unicodedata.normalize("NFC", _take_out(text))
    if has_markup(text):
        # Removed again after the markup: a character reference may have stood for an invisible
        # character.
        text = _SPACE.sub(" ", _take_out(strip_markup(text))).strip()
    return unmix(text) if has_mixed_word(text) else text


def _take_out(text: str) -> str:
    return _drop_invisible(_OVERRIDE.sub("", _CONTROL.sub("", text)))


def _has_invisible(text: str) -> bool:
    return _INVISIBLE.search(text) is not None and _drop_invisible(text) != text


def _drop_invisible(text: str) -> str:
    marks = _RIGHT_TO_LEFT.search(text) is not None
    flags = "\U0001f3f4" in text

    def keep_needed(found: re.Match) -> str:
        character, start, end = found[0], found.start(), found.end()
        # Direction marks are needed beside right-to-left scripts, joiners inside scripts and emoji
        # that join; anywhere else they are invisible and only make equal texts differ.
        if character in "\u200e\u200f\u061c":
            needed = marks
        elif character in "\u200c\u200d":
            needed = _joins(
                text[max(0, start - 2) : start].rstrip("\ufe0f")[-1:], text[end : end + 1]
            )
        else:
            # Flags of regions, such as Scotland's, are a black flag and invisible letters.
            needed = flags and character >= "\U000e0020"
        return character if needed else ""

    return _INVISIBLE.sub(keep_needed, text)


def _joins(before: str, after: str) -> bool:
    """Tells whether a joiner between two characters does its work.

    It does in emoji, and in scripts that have ligatures.
    """
    if not before or not after:
        return False
    if unicodedata.category(before) in ("So", "Sk"):
        return unicodedata.category(after) == "So"
    return unicodedata.category(before)[0] in "LM" and not unicodedata.name(
        before, "LATIN"
    ).startswith(_UNJOINED)


_CHECKS: dict[str, Callable[[str], bool]] = {
    "invalid_utf8": lambda text: _BROKEN.search(text) is not None,
    "control_character": lambda text: _CONTROL.search(text) is not None,
    "bidirectional_override": lambda text: _OVERRIDE.search(text) is not None,
    "zero_width": _has_invisible,
    "mixed_scripts": has_mixed_word,
    "markup": has_markup,
}
REASONS = (*_CHECKS, "empty", "too_long")
"""All reasons that `check` gives."""
