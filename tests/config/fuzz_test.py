"""Every leaf of every config at values that make no sense: each is refused in one line that names
its key, before any data is read."""

import copy
import random

import pytest
from paths import ROOT

from kd_jax.config.load import load_config, plain
from kd_jax.experiments.plan import make_plan

CONFIGS = sorted(path.stem for path in (ROOT / "configs").glob("*.py"))
NUMBERS = (float("nan"), float("inf"), -float("inf"), 10**40, "much", [1], {"a": 1}, True)
"""What no key takes that holds a number."""
TEXTS = (5, 1.5, True, {"a": 1}, "", float("nan"))
BOOLEANS = (3, "yes", [], 0.5, {"a": True})
LISTS = ({"a": 1}, float("nan"), True)


def leaves(value, path=()):
    """Yields each leaf's path and value; an empty section is one."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    else:
        yield path, value


def absurd(value):
    """Returns what can't stand in place of a value, by its kind."""
    if isinstance(value, bool):
        return BOOLEANS
    if isinstance(value, int | float):
        return NUMBERS
    if isinstance(value, str):
        return TEXTS
    return LISTS if isinstance(value, list | tuple) else ()


def cases():
    for name in CONFIGS:
        config = plain(load_config(name))
        for path, value in leaves(config):
            for wrong in absurd(value):
                yield name, path, wrong


def changed(config, path, value):
    found = copy.deepcopy(config)
    *sections, key = path
    section = found
    for each in sections:
        section = section[each]
    section[key] = value
    return found


def try_all(chosen):
    """Returns what went wrong: raw errors, messages that don't name the key, and what passed."""
    loaded, bad = {}, []
    for name, path, wrong in chosen:
        if name not in loaded:
            loaded[name] = plain(load_config(name))
        dotted = ".".join(path)
        try:
            make_plan(changed(loaded[name], path, wrong))
        except ValueError as error:
            line = str(error)
            if "\n" in line or path[-1] not in line:
                bad.append(f"{name}: {dotted}={wrong!r}: {line}")
        except Exception as error:
            bad.append(f"{name}: {dotted}={wrong!r}: {type(error).__name__}: {error}")
        else:
            bad.append(f"{name}: {dotted}={wrong!r}: accepted")
    return bad


def test_a_sample_of_all_leaves_and_values_is_refused():
    chosen = random.Random(0).sample(list(cases()), 300)
    bad = try_all(chosen)
    assert not bad, "\n".join(bad)


@pytest.mark.soak
def test_every_leaf_and_value_is_refused():
    bad = try_all(cases())
    assert not bad, "\n".join(bad)
