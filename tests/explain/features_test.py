"""What blocks of features are worth: by the models' own classifiers, with all else of an example
hidden."""

import itertools
import json
from dataclasses import replace

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest
from finished_runs import copy, images, texts

from kd_jax import cli
from kd_jax.explain import explain_features
from kd_jax.explain.features import _linear, value_features
from kd_jax.explain.run import ONE_DEVICE, open_run
from kd_jax.training.trained_model import Held

pytestmark = pytest.mark.slow

MEMBERS = {"vgg", "resnet", "vit"}


@pytest.fixture(scope="module")
def run():
    return open_run(images(), ONE_DEVICE)


@pytest.fixture(scope="module")
def valued(run):
    return value_features(run, "student", 3, None)


def accuracy_with(run, name, dimensions):
    """The accuracy of the model itself, run anew, with what its classifier reads replaced on the
    way."""
    model = run.models([name])[name]
    source = run.context.datasets.splits["evaluation"]
    batch = next(
        iter(run.context.datasets.evaluation_batches(source, list(model.views), len(source)))
    )
    mean = model.network(model.variables, batch).features["pooled"][: len(source)].mean(axis=0)
    kept = jnp.zeros(mean.shape, bool).at[jnp.array(dimensions, int)].set(True)

    def hide(classify, arguments, options, context):
        if context.module.name == "classifier" and context.method_name == "__call__":
            arguments = (jnp.where(kept, arguments[0], mean), *arguments[1:])
        return classify(*arguments, **options)

    with nn.intercept_methods(hide):
        logits = model.network(model.variables, batch).logits
    return float(np.mean(np.argmax(logits, axis=1)[: len(source)] == source.labels))


@pytest.mark.parametrize("name", ["student", "vgg", "vit"])
def test_values_are_those_of_the_models_own_accuracies(run, valued, name):
    """Of three blocks, by the definition."""
    blocks = list(valued[name]["values"])
    spans = [tuple(map(int, block.split("-"))) for block in blocks]
    assert spans[0][0] == 0
    assert [first for first, _ in spans[1:]] == [last + 1 for _, last in spans[:-1]]
    assert spans[-1][1] == valued[name]["dimensions"] - 1
    worth = {}
    for size in range(4):
        for subset in itertools.combinations(range(3), size):
            shown = [at for block in subset for at in range(spans[block][0], spans[block][1] + 1)]
            worth[frozenset(subset)] = accuracy_with(run, name, shown)
    for player in range(3):
        gains = []
        for order in itertools.permutations(range(3)):
            before = frozenset(order[: order.index(player)])
            gains.append(worth[before | {player}] - worth[before])
        assert valued[name]["values"][blocks[player]] == pytest.approx(
            np.mean(gains), abs=0.004
        )  # A tie or two.
    assert valued[name]["empty"] == pytest.approx(worth[frozenset()], abs=0.004)


def test_all_blocks_together_are_the_model_and_the_values_add_up_to_it(run, valued):
    assert set(valued) == MEMBERS | {"student"}
    for name, found in valued.items():
        assert found["all"] == run.results["models"][name]["accuracy"]
        assert sum(found["values"].values()) == pytest.approx(found["all"] - found["empty"])
        assert set(found["standard_errors"].values()) == {0.0}


def test_a_sample_is_near_the_exact_values_and_says_how_near(run, valued):
    found = value_features(run, "student", 3, 400)["student"]
    assert found["permutations"] == 400
    for block, exact in valued["student"]["values"].items():
        assert abs(found["values"][block] - exact) < 4 * found["standard_errors"][block] + 1e-9


def test_models_of_two_tokenizers_are_valued_side_by_side_and_kept_with_pictures(tmp_path):
    folder = copy(texts(), tmp_path / "run")
    explain_features(folder, None, None, None)
    told = json.loads((folder / "explain" / "explain.json").read_text())["features"]
    results = json.loads((folder / "results.json").read_text())
    assert set(told) == {*results["models"][results["compare"]["teacher"]]["members"], "student"}
    for name, found in told.items():
        assert found["all"] == pytest.approx(results["models"][name]["accuracy"])
        assert len(found["values"]) == 8
        assert (folder / "explain" / f"features_{name}.png").is_file()


def test_rows_without_a_label_do_not_count(run):
    splits = run.context.datasets.splits
    held = splits["evaluation"]
    labels = np.where(np.arange(len(held)) % 2, held.labels, -1).astype(np.int32)
    splits["evaluation"] = replace(held, labels=labels)
    try:
        some = value_features(run, "student", 2, None)["student"]["all"]
        splits["evaluation"] = replace(
            held, labels=np.where(labels < 0, held.labels, -1).astype(np.int32)
        )
        others = value_features(run, "student", 2, None)["student"]["all"]
    finally:
        splits["evaluation"] = held
    count = int((labels >= 0).sum())
    both = some * count + others * (len(held) - count)
    assert both / len(held) == pytest.approx(run.results["models"]["student"]["accuracy"])


def test_logits_that_are_no_linear_function_of_the_features_are_refused(run):
    """As those of a model with two classifiers."""
    model = run.models(["student"])["student"]
    table = {"pooled": np.ones((2, 32)), "logits": np.zeros((2, 10))}
    with pytest.raises(
        ValueError,
        match="the logits of 'student' aren't what one linear classifier makes of its 'pool",
    ):
        _linear(model, table)
    bare = replace(model, held=Held({"params": {"head": {}}}))
    with pytest.raises(ValueError, match="aren't what one linear classifier makes"):
        _linear(bare, table)


@pytest.mark.parametrize(
    ("blocks", "permutations", "message"),
    [
        (0, None, "--blocks must be from 1 to 32, the dimensions of 'vgg', got 0"),
        (33, 4, "--blocks must be from 1 to 32"),
        (17, None, "limited to 16 blocks, got 17; sample them with --permutations=N"),
        (3, 5, "permutations come in pairs"),
    ],
)
def test_blocks_that_there_can_t_be_are_refused(run, blocks, permutations, message):
    with pytest.raises(ValueError, match=message):
        value_features(run, "student", blocks, permutations)


def test_blocks_are_not_dropped_silently_where_terms_are_the_players():
    with pytest.raises(ValueError, match="--blocks are of features, with --by=features, not terms"):
        cli.explain_stage(images(), None, "terms", None, 3, None)
    with pytest.raises(
        ValueError,
        match="--examples are explained by their parts, with --by=members, not feature",
    ):
        cli.explain_stage(images(), None, "features", 3, None, None)
