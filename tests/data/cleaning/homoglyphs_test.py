import pytest

from kd_jax.data.cleaning.homoglyphs import has_mixed_word, script_of, unmix


@pytest.mark.parametrize(
    ("letter", "script"),
    [("a", "LATIN"), ("é", "LATIN"), ("а", "CYRILLIC"), ("ω", "GREEK"), ("東", ""), ("µ", "")],
)
def test_scripts_go_by_the_name_in_unicode(letter, script):
    assert script_of(letter) == script


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("p\u0430ypal", "paypal"),  # One Cyrillic letter.
        (
            "\u0440\u0435rf\u0435\u0441t",
            "perfect",
        ),  # More Cyrillic than Latin letters, but r and f have no twin there.
        ("\u041c\u043e\u0441kv\u0430", "Mockva"),  # Nor has v.
        (
            "\u0412\u0435\u0441\u043da",
            "\u0412\u0435\u0441\u043d\u0430",
        ),  # A Latin letter in a Russian word.
        ("c\u043e\u0432o", "cobo"),  # A tie goes to the script that comes first,
        ("c\u043e\u0432\u043e", "\u0441\u043e\u0432\u043e"),  # else to that of most letters.
        ("g\u03bf\u03bfd", "good"),  # Greek.
        (
            "\u03bf\u043b\u043b\u043e",
            "\u043e\u043b\u043b\u043e",
        ),  # Greek in a Cyrillic word that has no Latin form.
        ("n\u03b1\u0457ve", "naïve"),  # Three scripts.
        ("\u0421APITAL", "CAPITAL"),
        ("ok, g\u043eod day", "ok, good day"),
    ],
)
def test_look_alikes_become_the_script_that_fits_the_word(text, plain):
    assert has_mixed_word(text)
    assert unmix(text) == plain


def test_a_word_that_fits_no_script_stays_mixed():
    assert has_mixed_word("g\u0434od")
    assert unmix("g\u0434od") == "g\u0434od"


@pytest.mark.parametrize(
    "text",
    [
        "plain",
        "Москва",
        "Ελλάδα",
        "IT-компания",
        "Δx = λx",
        "kΩ",
        "β-carotene",
        "über",
        "日本 nihon",
        "αβγ abc",
        "x2а",
    ],
)
def test_words_of_one_script_and_formulas_are_not_mixed(text):
    assert not has_mixed_word(text)
    assert unmix(text) == text
