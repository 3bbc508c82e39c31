import pytest
from paths import ROOT, TESTS

from kd_jax import methods
from kd_jax.objective.terms import TERMS

README = (ROOT / "README.md").read_text()


def test_the_readme_has_the_table_as_the_code_gives_it():
    assert methods.table() in README, "run: uv run python -m kd_jax.methods"


@pytest.mark.parametrize("term", sorted(set(TERMS) - {"cross_entropy"}))
def test_every_method_names_its_paper(term):
    found = methods.reference(methods.NETWORKS.get(term, term))
    assert found is not None
    title, address, year = found
    assert title
    assert address.startswith("https://")
    assert 2014 <= int(year) <= 2026


def test_every_test_file_that_the_table_names_exists():
    folders = [TESTS / room for room in ("losses", "analysis")]
    for name in {"contract", *methods.OWN_TESTS.values()}:
        assert any((folder / f"{name}_test.py").exists() for folder in folders), name
