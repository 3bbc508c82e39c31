import configs_table
import methods_table
import pytest
import results_table
from paths import TESTS

from kd_jax.objective.terms import TERMS


@pytest.mark.parametrize("tool", [methods_table, configs_table, results_table])
def test_the_committed_page_is_what_the_code_gives(tool):
    assert tool.FILE.read_text() == tool.page(), f"run: uv run tools/{tool.__name__}.py"


HARD = {"cross_entropy", "binary_cross_entropy", "squared_error", "huber"}
"""Losses with labels, which are nobody's method of distillation."""


@pytest.mark.parametrize("term", sorted(set(TERMS) - HARD))
def test_every_method_names_its_paper(term):
    found = methods_table.reference(methods_table.NETWORKS.get(term, term))
    assert found is not None
    title, address, year = found
    assert title
    assert address.startswith("https://")
    assert 2014 <= int(year) <= 2026


def test_every_test_file_that_the_table_names_exists():
    folders = [TESTS / room for room in ("losses", "analysis")]
    for name in {"contract", *methods_table.OWN_TESTS.values()}:
        assert any((folder / f"{name}_test.py").exists() for folder in folders), name
