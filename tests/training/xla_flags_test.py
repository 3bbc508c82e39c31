"""The CPU's libraries are chosen once, for text or images, where the user has not chosen."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd_jax.training import xla_flags

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _flags(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=false")
    monkeypatch.setattr(xla_flags, "is_known", lambda: True)


@pytest.mark.parametrize(("text", "last"), [(True, "REDUCE"), (False, "ELTWISE")])
def test_the_flag_is_added_to_what_is_there(text, last):
    xla_flags.prepare(text=text)
    first, second = os.environ["XLA_FLAGS"].split()
    assert first == "--xla_cpu_enable_fast_math=false"
    assert second.startswith("--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_REDUCE")
    assert second.endswith(last)


def test_simulated_devices_start_collectives_in_one_order(monkeypatch):
    xla_flags.prepare_simulated()
    assert os.environ["XLA_FLAGS"].split()[1:] == [f"--{xla_flags.SCHEDULE}={xla_flags.ONE_ORDER}"]
    monkeypatch.setenv("XLA_FLAGS", f"--{xla_flags.SCHEDULE}=CPU_SCHEDULER_TYPE_DEFAULT")
    xla_flags.prepare_simulated()
    assert os.environ["XLA_FLAGS"] == f"--{xla_flags.SCHEDULE}=CPU_SCHEDULER_TYPE_DEFAULT"


def test_a_choice_of_the_user_stays(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", f"--{xla_flags.OPTION}=LIBRARY_FUSION_TYPE_INVALID")
    xla_flags.prepare(text=True)
    assert os.environ["XLA_FLAGS"] == f"--{xla_flags.OPTION}=LIBRARY_FUSION_TYPE_INVALID"


def test_other_versions_are_left_alone(monkeypatch):
    monkeypatch.setattr(xla_flags, "is_known", lambda: False)
    xla_flags.prepare(text=True)
    assert xla_flags.OPTION not in os.environ["XLA_FLAGS"]
    assert xla_flags.options(text=True) == {}


@pytest.mark.skipif(not xla_flags.is_known(), reason="another jaxlib")
@pytest.mark.parametrize("text", [True, False])
def test_a_program_takes_the_options_and_computes_the_same(text):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 8, 8, 3)), jnp.float32)

    def f(x):
        return jnp.sum(jax.nn.relu(x) * 2, axis=(1, 2))

    np.testing.assert_allclose(
        jax.jit(f, compiler_options=xla_flags.options(text=text))(x), f(x), rtol=1e-5
    )
