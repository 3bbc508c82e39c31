"""Finds and replaces look-alike letters in words that mix Latin with Cyrillic or Greek."""

import re
import unicodedata
from collections import Counter

SCRIPTS = ("LATIN", "CYRILLIC", "GREEK")

_LOOK_ALIKES = {
    "CYRILLIC": {
        "A": "aA",
        "VE": "bB",
        "IE": "eE",
        "IO": "ëË",
        "DZE": "sS",
        "BYELORUSSIAN-UKRAINIAN I": "iI",
        "YI": "ïÏ",
        "JE": "jJ",
        "KA": "kK",
        "EM": "mM",
        "EN": "hH",
        "O": "oO",
        "ER": "pP",
        "ES": "cC",
        "TE": "tT",
        "U": "yY",
        "HA": "xX",
        "SHHA": "h-",
        "KOMI DE": "d-",
        "QA": "qQ",
        "WE": "wW",
        "PALOCHKA": "l-",
    },
    "GREEK": {
        "ALPHA": "aA",
        "BETA": "bB",
        "GAMMA": "y-",
        "EPSILON": "eE",
        "ZETA": "-Z",
        "ETA": "nH",
        "IOTA": "iI",
        "KAPPA": "kK",
        "MU": "uM",
        "NU": "vN",
        "OMICRON": "oO",
        "RHO": "pP",
        "TAU": "tT",
        "UPSILON": "uY",
        "CHI": "xX",
        "OMEGA": "w-",
    },
}
"""Script -> a letter's name in Unicode -> the Latin letters that it looks like.

The first is what its small form looks like, the second its capital; "-" means none.
"""

_FOREIGN = re.compile("[\u0370-\u03ff\u0400-\u052f\u1c80-\u1c8f\u1f00-\u1fff\ua640-\ua69f]")
_WORD = re.compile(r"[^\W\d_]+")


def script_of(letter: str) -> str:
    """Returns "LATIN", "CYRILLIC" or "GREEK", or "" for a letter of another script.

    The first word of a letter's name in Unicode says its script.
    """
    first = unicodedata.name(letter, "").partition(" ")[0]
    return first if first in SCRIPTS else ""


def _make_tables() -> dict[str, dict[str, str]]:
    """Returns script -> a letter of another script -> its look-alike in this one."""
    # The palochka's capital is the only letter of the table that Unicode names without a case.
    latin = {"\u04c0": "I"}
    for script, letters in _LOOK_ALIKES.items():
        for name, twins in letters.items():
            for case, twin in zip(("SMALL", "CAPITAL"), twins, strict=True):
                if twin != "-":
                    latin[unicodedata.lookup(f"{script} {case} LETTER {name}")] = twin
    tables = {"LATIN": latin}
    for script in _LOOK_ALIKES:
        # Look-alikes of one Latin letter look like each other: a Greek letter reaches its Cyrillic
        # one by way of Latin.
        own = {twin: letter for letter, twin in latin.items() if script_of(letter) == script}
        tables[script] = own | {letter: own[twin] for letter, twin in latin.items() if twin in own}
    return tables


_TABLES = _make_tables()


def has_mixed_word(text: str) -> bool:
    """Tells whether a word mixes scripts as a disguise does.

    Cyrillic beside Latin or Greek letters always counts. Greek beside Latin letters is how formulas
    are written, so it counts only in words of at least three letters that become one script when
    look-alikes are replaced.
    """
    return _FOREIGN.search(text) is not None and any(
        _is_mixed(word) for word in _WORD.findall(text)
    )


def unmix(text: str) -> str:
    """Replaces look-alikes by letters of the script that most of their word is written in.

    If not all letters of the word can be replaced so, the next most common script is tried; a word
    that fits none stays as it is.
    """
    return _WORD.sub(lambda found: _unmix(found[0]) if _is_mixed(found[0]) else found[0], text)


def _is_mixed(word: str) -> bool:
    if word.isascii() or len(scripts := _count_scripts(word)) < 2:
        return False
    return "CYRILLIC" in scripts or (len(word) >= 3 and len(_count_scripts(_unmix(word))) == 1)


def _count_scripts(word: str) -> Counter[str]:
    return Counter(script for letter in word if (script := script_of(letter)))


def _unmix(word: str) -> str:
    for script, _ in _count_scripts(word).most_common():
        table = _TABLES[script]
        mapped = [
            letter if script_of(letter) in ("", script) else table.get(letter) for letter in word
        ]
        if None not in mapped:
            return "".join(letter for letter in mapped if letter)
    return word
