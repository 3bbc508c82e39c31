import pytest

from kd_jax.data.cleaning.markup import DEPTH, has_markup, strip_markup


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a<br />b", "a b"),
        ("<A HREF='x'>link</A>", " link "),
        ("<img src=x onerror=alert(1)>", " "),
        ("a<script>alert('<b>')</script>b", "a b"),
        ("<style type=text/css>p {}</style>x", " x"),
        ("a<!-- hidden\n -->b", "a b"),
        ("<!DOCTYPE html>x", " x"),
        ("fish &amp; chips", "fish & chips"),
        ("it&#39;s &#x27;so&#x27;", "it's 'so'"),
        ("&lt;b&gt;x&lt;/b&gt;", " x "),
        ("&amp;amp;lt;b&amp;amp;gt;x", " x"),
    ],
)
def test_markup_is_found_and_taken_out(text, shown):
    assert has_markup(text)
    assert strip_markup(text) == shown
    assert not has_markup(shown)


@pytest.mark.parametrize(
    "text",
    [
        "a < b > c",
        "<3",
        "<unk> [MASK] <mask> <s1>",
        "<user> said",
        "r&b; rock&roll;",
        "AT&T",
        "&unknown;",
        "1<2",
    ],
)
def test_text_with_such_signs_is_no_markup(text):
    assert not has_markup(text)
    assert strip_markup(text) == text


def test_references_are_followed_so_deep_and_no_deeper():
    assert strip_markup("&" + "amp;" * DEPTH) == "&"
    assert has_markup(strip_markup("&" + "amp;" * (DEPTH + 1)))
