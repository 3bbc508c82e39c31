"""A term has a field for each hyperparameter of its loss, with the loss's own default."""

import dataclasses

import pytest

from kd_jax.objective.terms import TERMS
from kd_jax.objective.terms.hyperparameters import of_loss
from kd_jax.objective.terms.term import LossTerm

LOSS_TERMS = [name for name, term in TERMS.items() if issubclass(term, LossTerm)]


@pytest.mark.parametrize("name", LOSS_TERMS)
def test_the_defaults_are_those_of_the_loss(name):
    term = TERMS[name]
    fields = {field.name: field.default for field in dataclasses.fields(term)}
    for option, parameter in of_loss(term.loss).items():
        assert fields[option] == parameter.default, option


@pytest.mark.parametrize("name", list(TERMS))
def test_a_term_is_one_frozen_dataclass_with_a_weight_of_one(name):
    assert TERMS[name].__dataclass_params__.frozen
    assert TERMS[name].weight == 1.0
