import numpy as np
import pytest
from PIL import Image

from kd_jax.data.readers import image_decoding
from kd_jax.data.source import Source
from kd_jax.data.views.image import ImageView

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 6, 8, 3), dtype=np.uint8)


def image_source(images):
    return Source("photos", "image", images, np.zeros(len(images), np.int32), ("a",), "sha256:0")


def test_normalises_by_channel():
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    prepared = ImageView(None, mean, std, None).prepare(image_source(IMAGES))
    assert prepared.lengths is None
    got = prepared.gather(np.array([3, 1]), None)["images"]
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, (IMAGES[[3, 1]] / 255.0 - mean) / std, atol=1e-6)


def test_one_value_serves_all_channels():
    got = (
        ImageView(None, (0.5,), (2.0,), None)
        .prepare(image_source(IMAGES))
        .gather(np.arange(5), None)["images"]
    )
    np.testing.assert_allclose(got, (IMAGES / 255.0 - 0.5) / 2, atol=1e-6)


@pytest.mark.parametrize("kind", ["array", "list", "lazy"])
@pytest.mark.parametrize(("found", "channels"), [(3, 1), (1, 3), (3, None), (1, 1)])
def test_resizes_and_converts(kind, found, channels, monkeypatch):
    images = IMAGES[..., :found]
    if kind == "lazy":
        monkeypatch.setattr(image_decoding, "MEMORY", 0)
    got = ImageView((4, 5), (0.0,), (1 / 255,), channels).prepare(
        image_source(images if kind == "array" else list(images))
    )
    got = got.gather(np.array([2]), None)["images"][0]
    picture = Image.fromarray(images[2].squeeze()).convert({1: "L", 3: "RGB"}[channels or found])
    want = np.asarray(picture.resize((5, 4), Image.Resampling.BILINEAR)).reshape(
        4, 5, channels or found
    )
    np.testing.assert_allclose(got, want, atol=1e-3)


@pytest.mark.parametrize(
    ("view", "inputs", "message"),
    [
        (ImageView(None, (0.0,), (1.0,), None), list(IMAGES), "give the view a size"),
        (
            ImageView(None, (0.0, 0.0), (1.0,), None),
            IMAGES,
            "mean has 2 values for images of 3 channels",
        ),
        (
            ImageView(None, (0.0,), (1.0,) * 3, 1),
            IMAGES,
            "std has 3 values for images of 1 channels",
        ),
        (ImageView(None, (0.0,), (1.0,), 4), IMAGES, "3 channels into 4"),
    ],
)
def test_bad_arguments_are_refused(view, inputs, message):
    with pytest.raises(ValueError, match=message):
        view.prepare(image_source(inputs))


def test_text_is_refused():
    text = Source("words", "text", ["a"], np.zeros(1, np.int32), ("a",), "sha256:0")
    with pytest.raises(ValueError, match="an image view can't read 'words', which holds text"):
        ImageView(None, (0.0,), (1.0,), None).prepare(text)
