"""Look-alike letters: words that mix the Latin script with Cyrillic or Greek."""

import re
import unicodedata
from collections import Counter

SCRIPTS = ("LATIN", "CYRILLIC", "GREEK")

_TWINS = {
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
"""Script -> a letter's name in Unicode -> the Latin letters that its small and its capital form
look like."""

_FOREIGN = re.compile("[\u0370-\u03ff\u0400-\u052f\u1c80-\u1c8f\u1f00-\u1fff\ua640-\ua69f]")
_WORD = re.compile(r"[^\W\d_]+")


def script_of(letter: str) -> str:
    """Tells a letter's script, "LATIN", "CYRILLIC" or "GREEK", by its name in Unicode; "" for
    another.
    """
    first = unicodedata.name(letter, "").partition(" ")[0]
    return first if first in SCRIPTS else ""


def _make_tables() -> dict[str, dict[str, str]]:
    """Builds script -> a letter of another script -> its twin in this one."""
    latin = {"\u04c0": "I"}  # The only letter named without its case.
    for script, letters in _TWINS.items():
        for name, twins in letters.items():
            for case, twin in zip(("SMALL", "CAPITAL"), twins, strict=True):
                if twin != "-":
                    latin[unicodedata.lookup(f"{script} {case} LETTER {name}")] = twin
    tables = {"LATIN": latin}
    for script in _TWINS:
        own = {twin: letter for letter, twin in latin.items() if script_of(letter) == script}
        tables[script] = own | {letter: own[twin] for letter, twin in latin.items() if twin in own}
    return tables


_TABLES = _make_tables()


def has_mixed_word(text: str) -> bool:
    """Tells whether a word mixes scripts as a disguise does.

    Cyrillic beside Latin or Greek letters always counts. Greek beside Latin letters is how formulas
    are written, so it counts in words of at least three letters that become one script by swapping
    look-alikes."""
    return _FOREIGN.search(text) is not None and any(
        _is_mixed(word) for word in _WORD.findall(text)
    )


def unmix(text: str) -> str:
    """Maps look-alikes to the script of most of their word's letters.

    Where that can't be done with all of its letters, to the next common script; a word that fits
    none stays as it is."""
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
