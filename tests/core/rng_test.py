import jax
import numpy as np

from kd_jax.core.rng import derived_seed, fold_name, stream


def bits(key):
    return tuple(jax.random.key_data(key).tolist())


def test_the_same_seed_stream_and_step_give_the_same_key():
    assert bits(stream(3, "dropout", 7)) == bits(stream(3, "dropout", 7))


def test_another_seed_stream_or_step_gives_another_key():
    keys = [
        stream(3, "dropout", 7),
        stream(4, "dropout", 7),
        stream(3, "init", 7),
        stream(3, "dropout", 8),
    ]
    assert len({bits(key) for key in keys}) == len(keys)


def test_a_key_does_not_depend_on_the_process_or_the_machine():
    # The stored numbers hold on every machine; Python's own hash would differ in every process.
    assert bits(stream(3, "dropout", 7)) == (4018879499, 2981519201)
    assert derived_seed(3, "shuffle", "student") == 487868053


def test_the_step_may_be_traced():
    traced = jax.jit(lambda step: jax.random.key_data(stream(3, "dropout", step)))
    np.testing.assert_array_equal(traced(7), jax.random.key_data(stream(3, "dropout", 7)))


def test_names_fold_into_keys_of_their_own():
    key = jax.random.key(0)
    assert len({bits(fold_name(key, name)) for name in ("hard", "soft", "hint")} | {bits(key)}) == 4


def test_a_derived_seed_fits_31_bits_and_depends_on_all_it_is_derived_from():
    seeds = [
        derived_seed(*what) for what in ((0, "a", "x"), (1, "a", "x"), (0, "b", "x"), (0, "a", "y"))
    ]
    assert len(set(seeds)) == 4
    assert all(0 <= seed < 2**31 for seed in seeds)
