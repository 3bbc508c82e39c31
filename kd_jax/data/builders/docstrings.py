"""First paragraphs of the docstrings of eight installed packages; the class is the package they
come from.

About 27,500 texts. The sources are parsed, never imported.
"""

import ast
import contextlib
import gc
import hashlib
import importlib.metadata
import re
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

VERSION = "1.0.0"
PACKAGES = (
    "flax",
    "jax",
    "numpy",
    "optax",
    "orbax-checkpoint",
    "scikit-learn",
    "tensorflow-datasets",
    "transformers",
)
LENGTHS = (10, 1000)
"""Shortest and longest text kept, in characters."""


class Builder(tfds.core.GeneratorBasedBuilder):
    """Builds the splits train, validation and test, about 80, 10 and 10 in a hundred.

    A hash of the text decides which split it belongs to.
    """

    name = "docstrings"
    VERSION = tfds.core.Version(VERSION)
    # Otherwise TFDS looks for checksums beside this file, with a package that it doesn't declare.
    code_path = None

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict(
            {
                "id": np.int32,
                "text": tfds.features.Text(),
                "label": tfds.features.ClassLabel(names=list(PACKAGES)),
            }
        )
        return tfds.core.DatasetInfo(builder=self, description=__doc__, features=features)

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
        del dl_manager
        with _without_garbage_collection():
            labelled = label_texts({package: read_package(package) for package in PACKAGES})
        return {
            split: self._generate_examples(labelled, split)
            for split in ("train", "validation", "test")
        }

    def _generate_examples(self, labelled: dict[str, str], split: str) -> Iterator:
        for index, (text, package) in enumerate(labelled.items()):
            if choose_split(text) == split:
                yield index, {"id": index, "text": text, "label": package}


def label_texts(texts: dict[str, set[str]]) -> dict[str, str]:
    """Labels each text with its package; returns text -> package, sorted by text.

    A text found in several packages belongs to none and is dropped.
    """
    owners: dict[str, str | None] = {}
    for package, found in texts.items():
        for text in found:
            owners[text] = None if text in owners else package
    return {text: owner for text, owner in sorted(owners.items()) if owner is not None}


def choose_split(text: str) -> str:
    """Returns the split that a text belongs to; equal texts are never in two splits."""
    tenth = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") % 10
    return {8: "validation", 9: "test"}.get(tenth, "train")


def read_package(package: str) -> set[str]:
    """Returns the distinct texts of an installed distribution.

    Raises:
      ValueError: if its files are not known, as in some editable installations.
    """
    files = importlib.metadata.files(package) or []
    texts = {
        text
        for file in files
        if file.suffix == ".py"
        for text in read_file(Path(str(file.locate())))
    }
    if not texts:
        raise ValueError(
            f"found no docstrings in the installed package {package!r}; install it from a wheel"
        )
    return texts


def read_file(path: Path) -> Iterable[str]:
    """Yields the first paragraph of each docstring of a file, with white space normalized.

    A file that can't be parsed yields none.
    """
    try:
        with warnings.catch_warnings():
            # Warnings of invalid escapes in other people's packages don't help the user.
            warnings.simplefilter("ignore")
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError, RecursionError):
        return
    for node in walk_statements(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            paragraph = re.split(r"\n\s*\n", (ast.get_docstring(node) or "").strip(), maxsplit=1)[0]
            # Lone surrogates, which tests of text handling have and UTF-8 can't encode, become
            # question marks.
            text = " ".join(paragraph.encode("utf-8", "replace").decode().split())
            if LENGTHS[0] <= len(text) <= LENGTHS[1]:
                yield text


def walk_statements(tree: ast.Module) -> Iterator[ast.AST]:
    """Yields the tree and every statement in it.

    Expressions, which are most of a tree and hold no docstring, are left out.
    """
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        for part in ("body", "orelse", "handlers", "finalbody", "cases"):
            waiting.extend(child for child in getattr(node, part, ()) if isinstance(child, ast.AST))


@contextlib.contextmanager
def _without_garbage_collection() -> Iterator[None]:
    # Parsing allocates millions of nodes and frees them by reference count; searching them for
    # cycles takes two thirds of the time.
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
