import logging
import resource
import shutil
from contextlib import closing, contextmanager

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kd_jax.training.checkpoints import CheckpointError, Checkpoints, ranking
from kd_jax.training.state import ModelState, TrainState

# A restore that fails leaves tasks of tensorstore's event loop behind, which complain when they are
# collected.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def make_state(step=0, *, width=4, optimizer=None, **more):
    """A state with BatchNorm statistics, a term's parameters, a bfloat16 leaf and the state of
    adamw."""
    rng = np.random.default_rng(step)

    def array(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    params = {"conv": {"kernel": array(3, 3, 1, width)}, "norm": {"scale": array(width)}, **more}
    objective = {"hint": {"kernel": array(width, 2).astype(jnp.bfloat16)}}
    trained = {"model": params, "objective": objective}
    update = optimizer or optax.adamw(1e-3)
    _, opt_state = update.update(
        jax.tree.map(jnp.ones_like, trained), update.init(trained), trained
    )
    statistics = {"norm": {"mean": array(width), "var": array(width) ** 2}}
    return TrainState(
        jnp.asarray(step, jnp.int32),
        {"student": ModelState(params, statistics, objective, {}, opt_state)},
    )


def opened(folder, keep_latest=2, keep_best=1):
    return closing(Checkpoints(folder, keep_latest=keep_latest, keep_best=keep_best))


def fill(folder, accuracies, **keep):
    """One checkpoint a step from 1 on; an accuracy of None leaves it unranked. Returns the steps
    that stayed."""
    with opened(folder, **keep) as checkpoints:
        for step, accuracy in enumerate(accuracies, 1):
            metrics = None if accuracy is None else {"accuracy": accuracy, "loss": 1.0}
            checkpoints.save(step, make_state(step), {"position": [step]}, metrics)
        checkpoints.wait()
        return checkpoints.steps()


def assert_same(ours, theirs):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


@pytest.fixture(scope="session")
def three(tmp_path_factory):
    folder = tmp_path_factory.mktemp("three")
    assert fill(folder, [0.9, 0.5, 0.6], keep_latest=3) == [1, 2, 3]
    return folder


@pytest.fixture
def folder(three, tmp_path):
    """Checkpoints of steps 1, 2 and 3, the first the best, to be damaged."""
    return shutil.copytree(three, tmp_path / "checkpoints")


# Round trip


def test_a_state_comes_back_bit_for_bit_with_what_was_kept_beside_it(folder):
    with opened(folder) as checkpoints:
        state, meta = checkpoints.restore_latest(make_state())
    assert_same(state, make_state(3))
    assert (meta["step"], meta["position"]) == (3, [3])


def test_a_state_comes_back_on_the_devices_of_the_template(folder):
    mesh = jax.make_mesh((4,), ("fsdp",), axis_types=(jax.sharding.AxisType.Auto,))

    def place(leaf):
        return jax.device_put(leaf, jax.NamedSharding(mesh, jax.P(*leaf.shape[:0])))

    template = jax.tree.map(place, make_state())
    template.models["student"].params["norm"]["scale"] = jax.device_put(
        jnp.zeros(4), jax.NamedSharding(mesh, jax.P("fsdp"))
    )
    with opened(folder) as checkpoints:
        state, _ = checkpoints.restore_latest(template)
    assert_same(state, make_state(3))
    jax.tree.map(
        lambda leaf, like: leaf.sharding.is_equivalent_to(like.sharding, leaf.ndim) or 1 / 0,
        state,
        template,
    )


def test_an_empty_folder_has_nothing_to_restore(tmp_path):
    with opened(tmp_path / "new") as checkpoints:
        assert checkpoints.steps() == []
        assert checkpoints.last_good() is None
        assert checkpoints.restore_latest(make_state()) is None
        with pytest.raises(CheckpointError, match="there is no undamaged checkpoint"):
            checkpoints.restore_best(make_state())


def test_the_state_may_change_as_soon_as_save_returns(tmp_path):
    donate = jax.jit(lambda state: jax.tree.map(lambda leaf: leaf * 0, state), donate_argnums=0)
    with opened(tmp_path) as checkpoints:
        state = make_state(1)
        checkpoints.save(1, state, {}, None)
        donate(state)
        checkpoints.wait()
        assert_same(checkpoints.restore_latest(make_state())[0], make_state(1))


def test_what_a_kill_inside_a_save_left_is_cleared_away(folder):
    leftover = folder / "4.orbax-checkpoint-tmp"
    leftover.mkdir()
    with opened(folder) as checkpoints:
        assert checkpoints.steps() == [1, 2, 3]
    assert not leftover.exists()


# Damage


def largest_file(folder):
    return max(
        (path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size
    )


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGES = [flip, truncate, lambda path: path.unlink(), lambda path: path.write_bytes(b"")]
DAMAGE_NAMES = ["flipped bit", "truncated", "missing", "empty"]
PARTS = {
    "arrays": "state/d",
    "description": "meta",
    "structure": "state/_METADATA",
    "index": "state/manifest.ocdbt",
}
HARMLESS = (PARTS["structure"], PARTS["index"])
"""A bit of these may say nothing of the arrays; then what is restored is whole, checksums and
all."""


def damage(folder, step, how=flip, part="state/d"):
    path = folder / str(step) / part
    how(path if path.is_file() else largest_file(path))


@pytest.mark.parametrize("how", DAMAGES, ids=DAMAGE_NAMES)
@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_a_damaged_newest_is_announced_and_the_one_before_restored(folder, how, part, caplog):
    damage(folder, 3, how, part)
    with caplog.at_level(logging.WARNING, "kd_jax"), opened(folder) as checkpoints:
        state, meta = checkpoints.restore_latest(make_state())
        if how is flip and part in HARMLESS and meta["step"] == 3:
            assert_same(state, make_state(3))
            return
        assert_same(state, make_state(2))
        assert meta["step"] == 2
        (warning,) = [record.getMessage() for record in caplog.records if record.name == "kd_jax"]
        assert f"checkpoint {folder.resolve() / '3'} is damaged: " in warning
        assert warning.endswith("; falling back to step 2")
        assert "\n" not in warning
        # Training goes on from step 2 and comes to step 3 once more.
        checkpoints.save(3, make_state(3), {}, {"accuracy": 0.6, "loss": 1.0})
        checkpoints.wait()
        assert_same(checkpoints.restore_latest(make_state())[0], make_state(3))


def test_two_damaged_ones_are_stepped_over(folder, caplog):
    damage(folder, 3, truncate)
    damage(folder, 2, flip)
    with opened(folder) as checkpoints:
        state, _ = checkpoints.restore_latest(make_state())
    assert_same(state, make_state(1))
    assert caplog.text.count("is damaged: ") == 2


def test_when_all_are_damaged_training_does_not_start_from_nothing_silently(folder):
    for step in (1, 2, 3):
        damage(folder, step)
    with (
        opened(folder) as checkpoints,
        pytest.raises(CheckpointError, match=r"every checkpoint in .* is damaged"),
    ):
        checkpoints.restore_latest(make_state())


def test_a_damaged_best_is_announced_and_the_next_best_restored(folder, caplog):
    damage(folder, 1)
    with opened(folder) as checkpoints:
        state, _ = checkpoints.restore_best(make_state())
    assert_same(state, make_state(3))
    # Others may log as well: a reader that failed beside the first complains when it is collected.
    (warning,) = [record.getMessage() for record in caplog.records if record.name == "kd_jax"]
    assert "is damaged: " in warning
    assert warning.endswith("; taking the next best")


def test_an_accuracy_that_was_altered_does_not_make_a_checkpoint_the_best(folder):
    meta = folder / "2" / "meta" / "metadata"
    altered = meta.read_text().replace("0.5", "0.95")
    assert altered != meta.read_text()
    meta.write_text(altered)
    with opened(folder) as checkpoints:
        assert_same(checkpoints.restore_best(make_state())[0], make_state(1))


def test_an_altered_checkpoint_does_not_change_which_ones_stay(folder):
    meta = folder / "2" / "meta" / "metadata"
    meta.write_text(meta.read_text().replace("0.5", "0.95"))
    with opened(folder, keep_latest=1) as checkpoints:
        checkpoints.save(4, make_state(4), {}, {"accuracy": 0.1, "loss": 1.0})
        checkpoints.wait()
        assert checkpoints.steps() == [1, 4]


# Another model or config is an error, never a fall-back


@pytest.mark.parametrize(
    ("template", "leaf"),
    [
        (make_state(width=5), "models/student/batch_stats/norm/mean is [[4], 'float32'] there"),
        (make_state(extra=jnp.zeros(2)), "extra is absent there and [[2], 'float32'] here"),
        (
            make_state(optimizer=optax.sgd(0.1)),
            "models/student/opt_state/0/count is [[], 'int32'] there and absent",
        ),
        (
            make_state().replace(step=jnp.zeros((), jnp.float32)),
            "step is [[], 'int32'] there and [[], 'float32'] here",
        ),
    ],
    ids=["shape", "extra leaf", "optimizer", "dtype"],
)
@pytest.mark.parametrize(
    "restore", [Checkpoints.restore_latest, Checkpoints.restore_best], ids=["latest", "best"]
)
def test_a_state_of_another_structure_is_refused_naming_the_leaf(
    folder, template, leaf, restore, caplog
):
    with opened(folder) as checkpoints:
        with pytest.raises(CheckpointError, match="doesn't fit the config") as refusal:
            restore(checkpoints, template)
        assert checkpoints.steps() == [1, 2, 3]
    assert leaf in str(refusal.value)
    assert not [record for record in caplog.records if record.name == "kd_jax"]


# Which ones stay


def test_the_newest_stay_and_the_best(tmp_path):
    assert fill(tmp_path, [0.1, 0.9, 0.2, 0.3, 0.4], keep_latest=2, keep_best=1) == [2, 4, 5]
    with opened(tmp_path) as checkpoints:
        assert_same(checkpoints.restore_best(make_state())[0], make_state(2))
        assert_same(checkpoints.restore_latest(make_state())[0], make_state(5))


def test_several_of_the_best_may_stay(tmp_path):
    assert fill(tmp_path, [0.7, 0.9, 0.8, 0.3, 0.4], keep_latest=1, keep_best=2) == [2, 3, 5]


def test_of_equals_the_earlier_is_the_best(tmp_path):
    assert fill(tmp_path, [0.1, 0.9, 0.9, 0.9, 0.2], keep_latest=1, keep_best=1) == [2, 5]
    with opened(tmp_path) as checkpoints:
        assert_same(checkpoints.restore_best(make_state())[0], make_state(2))


def test_ranking_is_by_accuracy_then_loss_then_the_earlier_step():
    best_last = [(0.5, 1.0, 9), (0.6, 2.0, 8), (0.6, 1.0, 7), (0.6, 1.0, 3)]
    metrics = [dict(zip(("accuracy", "loss", "step"), row, strict=True)) for row in best_last]
    shuffled = [metrics[i] for i in (2, 0, 3, 1)]
    assert sorted(shuffled, key=ranking) == metrics


def test_an_unranked_save_is_resumed_from_but_never_chosen_as_the_best(tmp_path):
    fill(tmp_path, [0.1, 0.2, None], keep_latest=1)
    with opened(tmp_path, keep_latest=1) as checkpoints:
        assert checkpoints.steps() == [2, 3]
        assert_same(checkpoints.restore_latest(make_state())[0], make_state(3))
        assert_same(checkpoints.restore_best(make_state())[0], make_state(2))


def test_unranked_saves_alone_have_no_best(tmp_path):
    fill(tmp_path, [None])
    with (
        opened(tmp_path) as checkpoints,
        pytest.raises(CheckpointError, match="no undamaged checkpoint"),
    ):
        checkpoints.restore_best(make_state())


@pytest.mark.parametrize("keep", [{"keep_latest": 0}, {"keep_best": 0}])
def test_at_least_one_of_each_is_kept(tmp_path, keep):
    with pytest.raises(ValueError, match="must be at least 1"):
        Checkpoints(tmp_path, **({"keep_latest": 1, "keep_best": 1} | keep))


# Saves that fail


@contextmanager
def files_of_at_most(size):
    """Writes beyond `size` bytes fail, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_save_that_fails_says_so_in_one_line_and_the_last_good_one_stays(folder):
    checkpoints = Checkpoints(folder, keep_latest=2, keep_best=1)

    def save():
        big = make_state(4, extra=jnp.asarray(np.random.default_rng(0).normal(size=20_000)))
        checkpoints.save(4, big, {}, {"accuracy": 0.7, "loss": 1.0})
        checkpoints.wait()

    with (
        files_of_at_most(40_000),
        pytest.raises(CheckpointError, match="could not be written to") as failure,
    ):
        save()
    assert str(failure.value).endswith(f"; last good: {folder.resolve() / '3'}")
    assert "\n" not in str(failure.value)
    with opened(folder) as again:
        assert again.steps() == [1, 2, 3]
        assert_same(again.restore_latest(make_state())[0], make_state(3))


def test_a_step_that_is_there_already_is_not_overwritten_silently(folder):
    with (
        opened(folder) as checkpoints,
        pytest.raises(CheckpointError, match="could not be written"),
    ):
        checkpoints.save(3, make_state(1), {}, None)
