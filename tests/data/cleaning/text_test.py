import pytest

from kd_jax.data.cleaning.text import REASONS, check, is_nfc, repair

WRONG = [
    # value, reasons, what repair makes of it, what is left then
    (b"caf\xe9", ["invalid_utf8"], "caf\udce9", ["invalid_utf8"]),
    ("a \udc80 surrogate", ["invalid_utf8"], "a \udc80 surrogate", ["invalid_utf8"]),
    ("a \ufffd\ufffd b", ["invalid_utf8"], "a \ufffd\ufffd b", ["invalid_utf8"]),
    ("be\x08ll\x1b", ["control_character"], "bell", []),
    ("new\x85line", ["control_character"], "newline", []),
    ("pass\u200bword", ["zero_width"], "password", []),
    ("a\u200db", ["zero_width"], "ab", []),
    ("\ufeffmark", ["zero_width"], "mark", []),
    ("latin\u200f", ["zero_width"], "latin", []),
    ("x\U000e0041\U000e0042", ["zero_width"], "x", []),
    ("user\u202egnp.exe", ["bidirectional_override"], "usergnp.exe", []),
    ("\u2066isolated\u2069", ["bidirectional_override"], "isolated", []),
    ("p\u0430yp\u0430l", ["mixed_scripts"], "paypal", []),
    ("<b>bold</b>", ["markup"], "bold", []),
    ("", ["empty"], "", ["empty"]),
    (" \t\u3000", ["empty"], " \t\u3000", ["empty"]),
    ("\u200b", ["zero_width", "empty"], "", ["empty"]),
    ("<br/>", ["markup"], "", ["empty"]),
    ("x" * 31, ["too_long"], "x" * 31, ["too_long"]),
    (
        "\u200bp\u0430y\x00<i>",
        ["control_character", "zero_width", "mixed_scripts", "markup"],
        "pay",
        [],
    ),
    (("fine", "<i>b</i>"), ["markup"], ("fine", "b"), []),
    (("fine", ""), ["empty"], ("fine", ""), ["empty"]),
]
FINE = [
    "plain",
    "tab\tand\r\nlines",
    "naïve café",
    b"bytes caf\xc3\xa9",
    "Москва и Киев",
    "Ελλάδα",
    "東京 カタカナ",
    "a < b & c",
    "I <3 you",
    "\u05e9\u05dc\u05d5\u05dd\u200f!",
    "می\u200cخواهم",
    "क\u094d\u200dष",
    "👩\u200d👧 ❤\ufe0f\u200d🔥",
    "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    "x" * 30,
    ("a", "b"),
]


@pytest.mark.parametrize(("value", "reasons", "repaired", "left"), WRONG)
def test_what_is_wrong_is_named_and_repaired_where_it_can_be(value, reasons, repaired, left):
    assert check(value, max_characters=30) == reasons
    assert repair(value) == repaired
    assert check(repaired, max_characters=30) == left
    assert repair(repaired) == repaired


@pytest.mark.parametrize("value", FINE)
def test_what_is_right_stays(value):
    assert check(value, max_characters=30) == []
    assert repair(value) == (value.decode() if isinstance(value, bytes) else value)


def test_every_reason_occurs_above():
    assert {reason for _, reasons, _, _ in WRONG for reason in reasons} == set(REASONS)


def test_without_a_limit_any_length_is_right():
    assert check("x" * 100_000) == []


def test_repair_composes_letters_and_accents():
    assert repair("e\u0301t\u0065\u0301") == "été"
    assert [is_nfc(value) for value in ("e\u0301", "é", ("é", "e\u0301"), b"e\xcc\x81")] == [
        False,
        True,
        False,
        False,
    ]


def test_a_hostile_text_takes_no_time_beyond_the_limit():
    assert check("<!--" * 1_000_000, max_characters=1_000) == ["too_long"]
    assert check("&amp;" + "amp;" * 100_000) == ["markup"]
    assert repair("&amp;" + "amp;" * 100_000).startswith("&amp;")
