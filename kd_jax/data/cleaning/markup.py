"""Finds and removes HTML in text: tags, comments and character references."""

import html
import re
from html.entities import html5

ELEMENTS = (
    "a|abbr|address|article|aside|audio|b|base|blockquote|body|br|button|canvas|center|cite"
    "|code|dd|del|details"
    "|div|dl|dt|em|embed|fieldset|figcaption|figure|font|footer|form|frame|frameset|h1|h2|h3"
    "|h4|h5|h6|head|header"
    "|hr|html|i|iframe|img|input|ins|kbd|label|legend|li|link|main|marquee|meta|nav|noscript"
    "|object|ol|optgroup"
    "|option|p|param|picture|pre|q|s|samp|script|section|select|small|source|span|strike"
    "|strong|style|sub|summary"
    "|sup|svg|table|tbody|td|template|textarea|tfoot|th|thead|title|tr|tt|u|ul|var|video"
)
"""The names that make `<name ...>` a tag; `<unk>`, `<3` and `<user>` are text."""

DEPTH = 8
"""How many levels of references within references are resolved."""

_TAG = re.compile(rf"</?(?:{ELEMENTS})(?:[\s/][^<>]*)?>|<!--|<!doctype[^<>]*>|<!\[cdata\[", re.I)
_HIDDEN = re.compile(r"<(script|style)(?:\s[^<>]*)?>.*?</\1\s*>|<!--.*?-->", re.I | re.S)
_REFERENCE = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|([A-Za-z][A-Za-z0-9]{1,31}));")


def has_markup(text: str) -> bool:
    """Tells whether a text holds an HTML tag, comment or character reference."""
    # Looking for one character first is much faster than the pattern, and most texts have none.
    if "<" in text and _TAG.search(text):
        return True
    return "&" in text and any(_is_reference(found) for found in _REFERENCE.finditer(text))


def strip_markup(text: str) -> str:
    """Returns about what a browser would show: no tags, scripts or comments, references resolved.

    Tags hidden in references (`&lt;b&gt;`) are removed as well, up to `DEPTH` levels deep;
    `has_markup` tells whether any are left.
    """
    # Resolving references may uncover tags and further references; the bound keeps a text of nested
    # ones from costing without end.
    for _ in range(DEPTH):
        if not has_markup(text):
            break
        shown = _TAG.sub(" ", _HIDDEN.sub(" ", text))
        text = _REFERENCE.sub(
            lambda found: html.unescape(found[0]) if _is_reference(found) else found[0], shown
        )
    return text


def _is_reference(found: re.Match) -> bool:
    return found[1] is None or f"{found[1]};" in html5
