"""What the tests of trusted sets share: pictures with planted labels, and a run that found them."""

import pytest
from planted_labels import picture_config, write_pictures

from kd_jax.experiments.run import run_experiment


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    write_pictures(folder, flip=True)
    return folder


@pytest.fixture(scope="session")
def judged(pictures, tmp_path_factory):
    """A run whose judge's likes find the planted labels: config, results, folder."""
    config, folder = picture_config(pictures), tmp_path_factory.mktemp("judged")
    return config, run_experiment(config, folder), folder
