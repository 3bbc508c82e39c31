"""Which of a teacher's outputs are kept, and whose they are."""

from types import SimpleNamespace

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest

from kd_jax.core.types import LOGITS, POSITIONS
from kd_jax.models.network import Network
from kd_jax.teachers import kept_outputs
from kd_jax.teachers.ensemble import Ensemble


def network(dtype=jnp.float32):
    return Network(nn.Dense(2), "words", dtype)


def model(of, home=None, **description):
    known = {"fingerprint": "sha256:1"} | description
    return SimpleNamespace(network=of, description=known, home=home, plan=SimpleNamespace(name="t"))


def ensemble(combine, *members):
    named = {str(number): each for number, each in enumerate(members)}
    return Ensemble(named, combine, (1.0,) * len(members), (1.0,) * len(members), "words")


def a_task(words):
    return SimpleNamespace(datasets=SimpleNamespace(task=SimpleNamespace(words=words)))


class Split(SimpleNamespace):
    def __len__(self):
        return 1000


@pytest.mark.parametrize(
    ("of", "shape", "kept"),
    [
        (network(), (10,), True),
        (ensemble("mean_logits", network()), (10,), True),
        (ensemble("least_loss", network()), (10,), False),
        # A word for each mask: which there are is in its view alone.
        (network(), (None, 10), False),
        (network(), (3, 10), False),
        (network(), (2**30 // 8000,), True),
        (network(), (2**30 // 8000 + 1,), False),
    ],
)
def test_evaluated_logits_are_kept_where_each_example_has_one_answer(
    of, shape, kept, tmp_path, monkeypatch
):
    monkeypatch.setattr(kept_outputs, "_shapes", lambda *_given, **_options: {LOGITS: shape})
    monkeypatch.setattr(kept_outputs, "_stored", lambda *_given, **_options: "outputs")
    found = kept_outputs.evaluated(model(of, tmp_path), Split(), a_task(words=False), 64)
    assert found == ("outputs" if kept else None)


@pytest.mark.parametrize(("words", "kept"), [(2**30 // 80000, True), (2**30 // 80000 + 1, False)])
def test_evaluated_logits_of_words_are_kept_with_which_of_them_were_read(
    words, kept, tmp_path, monkeypatch
):
    monkeypatch.setattr(kept_outputs, "_shapes", lambda *_given, **_options: {LOGITS: (words, 10)})
    monkeypatch.setattr(kept_outputs, "_stored", lambda *_given, **_options: "outputs")
    tagging = a_task(words=True)
    found = kept_outputs.evaluated(model(network(), tmp_path), Split(), tagging, 64)
    assert found == ("outputs" if kept else None)
    assert POSITIONS in kept_outputs._names((), tagging, kept_outputs.ALL)
    assert POSITIONS not in kept_outputs._names((), a_task(words=False), kept_outputs.ALL)


@pytest.mark.parametrize("changed", ["dtype", "architecture", "member", "tokenizer", "source"])
def test_outputs_are_of_one_teacher_as_it_computes_on_one_source(changed):
    source, other = SimpleNamespace(fingerprint="a"), SimpleNamespace(fingerprint="b")
    plain = model(network(), architecture={"pooling": "mean"})
    pair = {
        "dtype": (plain, model(network(jnp.bfloat16), architecture={"pooling": "mean"})),
        "architecture": (plain, model(network(), architecture={"pooling": "first"})),
        "member": tuple(
            model(ensemble("mean_logits", network(dtype))) for dtype in (jnp.float32, jnp.bfloat16)
        ),
        "tokenizer": (plain, model(network(), architecture={"pooling": "mean"}, tokenizer="t")),
        "source": (plain, plain),
    }[changed]
    assert kept_outputs._facts(pair[0], source) == kept_outputs._facts(pair[0], source)
    second = other if changed == "source" else source
    assert kept_outputs._facts(pair[0], source) != kept_outputs._facts(pair[1], second)


@pytest.mark.parametrize("taught", [True, False])
def test_only_what_a_student_learns_from_must_be_finite(taught, monkeypatch):
    written = []
    store = SimpleNamespace(
        missing=lambda: [range(2)],
        rows=2,
        keep=[LOGITS],
        write=lambda part, columns: written.append(columns),
        finish=lambda: None,
    )
    rows = {LOGITS: np.array([[0.0, np.inf], [1.0, 2.0]], np.float32), "index": np.arange(2)}
    monkeypatch.setattr(kept_outputs, "_shapes", lambda *_given, **_options: {LOGITS: (2,)})
    monkeypatch.setattr(kept_outputs, "ask", lambda *_given: iter([rows, {}]))
    context = SimpleNamespace(parallel=SimpleNamespace(evaluate=lambda step: step), stop=None)
    teacher = model(network())
    teacher.variables = {}

    def fill():
        kept_outputs._fill(
            store, lambda part: [], None, teacher, None, context, kept_outputs.ALL, taught=taught
        )

    if taught:
        with pytest.raises(ValueError, match="t"):
            fill()
        assert not written
        return
    fill()
    np.testing.assert_array_equal(written[0][LOGITS].values, rows[LOGITS])
