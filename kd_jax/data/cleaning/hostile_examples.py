"""Hostile texts of every kind that cleaning knows, planted among real ones to see what it
catches."""

import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

MAX_CHARACTERS = 2_000
"""The limit that planted texts which are too long go beyond."""
LONG = 90
"""Characters from which on a small change leaves a text much the same."""
LOOK_ALIKES = {"a": "а", "e": "е", "o": "о", "p": "р", "c": "с", "x": "х", "y": "у", "i": "і"}
GREEK = {"o": "ο", "v": "ν", "i": "ι", "a": "α"}


@dataclass
class HostileExamples:
    """Real rows with hostile ones among them.

    Attributes:
      inputs: [N] texts; bytes where they are no UTF-8.
      labels: [N].
      wanted: row, from 0 -> the reason it was planted for, of the hostile ones.
    """

    inputs: list[str | bytes] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    wanted: dict[int, str] = field(default_factory=dict)


Change = Callable[[random.Random, str], str | bytes]


def _insert(rng: random.Random, text: str, what: str) -> str:
    place = rng.randrange(1, len(text))
    return text[:place] + what + text[place:]


def _insert_one_of(characters: str) -> Change:
    return lambda rng, text: _insert(rng, text, rng.choice(characters))


def _break_encoding(rng: random.Random, text: str) -> str | bytes:
    broken = [b"\xff\xfe", b"\xc3(", b"\xe2\x82", b"\xed\xa0\x80"]
    return rng.choice(
        [
            lambda: _insert(rng, text, "\0").encode().replace(b"\0", rng.choice(broken)),
            lambda: _insert(rng, text, "\ufffd" * rng.randrange(1, 4)),
            lambda: _insert(rng, text, rng.choice("\udc80\udcff\ud83d")),
        ]
    )()


def _disguise(rng: random.Random, text: str) -> str:
    """Puts look-alikes into one to all words of at least four letters that have some."""
    table = rng.choice([LOOK_ALIKES, LOOK_ALIKES, GREEK])
    words = text.split(" ")
    fit = [i for i, word in enumerate(words) if word.isascii() and word.isalpha() and len(word) > 3]
    fit = [i for i in fit if set(words[i]) & set(table) and set(words[i]) - set(table)]
    for i in rng.sample(fit, rng.randrange(1, len(fit) + 1)):
        letter = rng.choice(sorted(set(words[i]) & set(table)))
        words[i] = words[i].replace(letter, table[letter])
    return " ".join(words)


def _mark_up(rng: random.Random, text: str) -> str:
    words = text.split(" ")
    at = rng.randrange(len(words))
    words[at] = rng.choice(
        [
            "<b>{}</b>",
            "<a href='http://x.example/?q=1'>{}</a>",
            "{}<br />",
            "<p>{}",
            "{} &amp; &quot;more&quot;",
            "<script>alert(1)</script>{}",
            "<img src=x onerror=alert(1)>{}",
            "{}&#8217;s",
            "&lt;div&gt;{}",
            "<!-- {} -->{}",
            "<FONT COLOR=red>{}</FONT>",
            "{}&#x27;",
        ]
    ).replace("{}", words[at])
    return " ".join(words)


def _vary_spelling(rng: random.Random, text: str) -> str:
    """Changes the case, the spaces, or letters into others that NFKC makes the same."""
    wide = "".join(
        chr(ord(c) + 0xFEE0) if "a" <= c <= "z" and rng.random() < 0.3 else c for c in text
    )
    return rng.choice([text, text.upper(), text.title(), f"  {text.replace(' ', '  ')}\t", wide])


def _vary_slightly(rng: random.Random, text: str) -> str:
    """Changes one letter, drops a word or adds one, in a long text."""
    words, at = text.split(" "), rng.randrange(2, len(text) - 2)
    drop = rng.choice([i for i, word in enumerate(words) if 0 < len(word) <= 5])
    return rng.choice(
        [
            text[:at] + rng.choice(sorted(set("bdkmqz") - {text[at].lower()})) + text[at + 1 :],
            " ".join(words[:drop] + words[drop + 1 :]),
            f"{text} indeed",
        ]
    )


CHANGES: dict[str, Change] = {
    "invalid_utf8": _break_encoding,
    "control_character": _insert_one_of("\0\x01\x07\x08\x0b\x0c\x1b\x7f\x85\x9d\ufdd0\uffff"),
    "zero_width": _insert_one_of("\u200b\u200c\u200d\u2060\ufeff\u00ad\u200e\U000e0041\u3164"),
    "bidirectional_override": _insert_one_of("\u202a\u202b\u202d\u202e\u2066\u2067\u2069"),
    "mixed_scripts": _disguise,
    "markup": _mark_up,
    "empty": lambda rng, _: rng.choice(["", " ", "\t\n", "\u00a0\u2003", "\u3000"]),
    "too_long": lambda rng, text: (
        text + " " + " ".join(rng.choice(text.split()) for _ in range(MAX_CHARACTERS))
    ),
    "duplicate": _vary_spelling,
    "near_duplicate": _vary_slightly,
    "duplicate_of_evaluation": _vary_spelling,
    "near_duplicate_of_evaluation": _vary_slightly,
}


def add_hostile_examples(
    texts: Sequence[str],
    labels: Sequence[int],
    held_out: Sequence[str],
    seed: int,
    count: int = 300,
    classes: int = 2,
) -> HostileExamples:
    """Puts hostile rows in the place of the first `count` rows; a planted repetition comes after
    its original.

    Args:
      texts: [N] real rows; those that are changed or repeated have at least `LONG` characters.
      labels: [N].
      held_out: texts of the evaluation.
      seed: of everything that is drawn, the order of the rows included.
      count: of hostile rows; the kinds take turns.
      classes: how many there are, at least two; a hostile row gets any.
    """
    rng = random.Random(seed)
    rows = [
        (rng.random(), text, label, None)
        for text, label in zip(texts[count:], labels[count:], strict=True)
    ]
    long = rng.sample([row for row in rows if _is_repeatable(row[1])], count // 3)
    away = rng.sample([text for text in held_out if _is_repeatable(text)], count // 3)
    spent = sorted(
        rng.sample(texts[:count], count), key=_fits_disguise
    )  # Those that fit are taken first.
    kinds = itertools.cycle([*CHANGES, "conflicting_labels"])
    planted: list[tuple[float, str | bytes, int, str]] = []
    while len(planted) < count:
        kind = next(kinds)
        if kind == "conflicting_labels":
            text = spent.pop()
            planted += [(rng.random(), _vary_spelling(rng, text), label, kind) for label in (0, 1)]
        elif kind in ("duplicate", "near_duplicate"):
            place, text, label, _ = long.pop()
            planted.append((rng.uniform(place, 1), CHANGES[kind](rng, text), label, kind))
        else:
            text = away.pop() if kind.endswith("of_evaluation") else spent.pop()
            planted.append((rng.random(), CHANGES[kind](rng, text), rng.randrange(classes), kind))
    mixed = sorted([*rows, *planted[:count]], key=lambda row: row[0])
    wanted = {number: kind for number, (_, _, _, kind) in enumerate(mixed) if kind}
    return HostileExamples([row[1] for row in mixed], [row[2] for row in mixed], wanted)


def _is_repeatable(text: str) -> bool:
    """Tells whether a small change leaves a text much the same, and it has no other fault."""
    return len(text) >= LONG and not set(text) & set("<&")


def _fits_disguise(text: str) -> bool:
    """Tells whether a word of it has letters with look-alikes of every script, and others."""
    return len(text) >= 30 and any(
        len(word) > 3
        and word.isascii()
        and word.isalpha()
        and set(word) & set("aoi")
        and set(word) - set(LOOK_ALIKES)
        for word in text.split(" ")
    )
