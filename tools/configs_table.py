"""Writes docs/configs.md: every key of a config with its default, from the defaults themselves.

uv run tools/configs_table.py [--check]
"""

import ast
import io
import sys
import tokenize
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "kd_jax" / "config" / "defaults.py"
TEXT = ROOT / "tools" / "configs_text.md"
FILE = ROOT / "docs" / "configs.md"


def table() -> str:
    """Returns Markdown: key, default and meaning, in the file's order."""
    source = SOURCE.read_text()
    tree = ast.parse(source)
    assign = next(
        node
        for node in tree.body
        if isinstance(node, ast.AnnAssign) and getattr(node.target, "id", "") == "DEFAULTS"
    )
    rows = ["| key | default | meaning |", "|---|---|---|"]
    assert isinstance(assign.value, ast.Call)
    _add(assign.value, "", _comments(source), rows)
    return "\n".join(rows)


def _comments(source: str) -> dict[int, str]:
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT}


def _add(call: ast.Call, prefix: str, comments: dict[int, str], rows: list[str]) -> None:
    for keyword in call.keywords:
        path, value = f"{prefix}{keyword.arg}", keyword.value
        if isinstance(value, ast.Call) and value.keywords:
            _add(value, f"{path}.", comments, rows)
        else:
            comment = comments.get(value.end_lineno or value.lineno, "")
            rows.append(f"| `{path}` | `{ast.unparse(value)}` | {comment} |")


def page() -> str:
    """Returns the whole page: the table, and the text beside it."""
    return TEXT.read_text().replace("<!-- table -->", table())


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(0 if FILE.read_text() == page() else "docs/configs.md isn't current")
    FILE.write_text(page())
