"""Models of the hub by name: from its cache, or one line that says why not. No test goes over the
network."""

import json
import os

import pytest

from kd_jax.models.weights import hub, load

HASH = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The hub's cache with one model, laid out as huggingface_hub does it."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    model = tmp_path / "models--someone--small-bert"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text(HASH)
    snapshot = model / "snapshots" / HASH
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text(json.dumps({"model_type": "albert"}))
    return snapshot


def test_a_cached_model_is_found_by_name(cache):
    assert load.path_of("hub:someone/small-bert") == cache
    assert load.path_of(f"hub:someone/small-bert@{HASH}") == cache
    with pytest.raises(ValueError, match="model_type 'albert' is not supported"):
        load.load(load.path_of("hub:someone/small-bert"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "hub:someone/else",
            "'someone/else' is not in the hub's cache and can't be fetched now: fetch it once",
        ),
        ("hub:someone/small-bert@v9", "'someone/small-bert' is not in the hub's cache"),
        ("hub:bert", "'hub:bert' must be hub:OWNER/MODEL or hub:OWNER/MODEL@REVISION"),
        ("hub:some one/bert", "'hub:some one/bert' is no name of a model"),
    ],
)
def test_what_can_not_be_had_is_said_in_one_line(cache, name, message):
    del cache
    with pytest.raises(ValueError, match=message) as refusal:
        load.path_of(name)
    assert "\n" not in str(refusal.value)


def test_neither_code_nor_pickles_are_ever_fetched():
    assert not [name for name in hub.FILES if not name.endswith((".json", ".safetensors"))]
