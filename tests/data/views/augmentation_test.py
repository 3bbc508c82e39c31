import jax
import numpy as np
import pytest

from kd_jax.data.batches import training_batches
from kd_jax.data.source import Source
from kd_jax.data.views.augmentation import Augmentation, Draws, augment, make_augmentation
from kd_jax.data.views.image import ImageView

COUNT, SIDE = 24, 6
IMAGES = np.random.default_rng(0).integers(1, 256, (COUNT, SIDE, SIDE, 3), dtype=np.uint8)


def draws(*shifts, flipped=False):
    return Draws(np.float32(shifts) / SIDE, np.full(len(shifts), flipped))


# One image


def test_no_shift_and_no_mirror_change_nothing():
    np.testing.assert_array_equal(augment(IMAGES, draws(*[(0, 0)] * COUNT)), IMAGES)


@pytest.mark.parametrize(("down", "right"), [(2, 1), (-1, 0), (0, -3), (-2, 2)])
def test_a_shift_moves_the_image_and_brings_in_black(down, right):
    moved = augment(IMAGES[:1], draws((down, right)))[0]
    padded = np.pad(IMAGES[0], [(3, 3), (3, 3), (0, 0)])
    np.testing.assert_array_equal(
        moved, padded[3 - down : 3 - down + SIDE, 3 - right : 3 - right + SIDE]
    )


def test_a_mirror_is_taken_of_the_shifted_image():
    mirrored = augment(IMAGES[:1], draws((1, 2), flipped=True))
    np.testing.assert_array_equal(mirrored, augment(IMAGES[:1], draws((1, 2)))[:, :, ::-1])


def test_a_view_of_twice_the_size_shows_the_same_part():
    small = augment(IMAGES, draws(*[(1, -2)] * COUNT))
    large = augment(IMAGES.repeat(2, 1).repeat(2, 2), draws(*[(1, -2)] * COUNT))
    np.testing.assert_array_equal(large, small.repeat(2, 1).repeat(2, 2))


# Draws


def test_shifts_cover_all_pixels_alike_and_mirrors_come_at_their_rate():
    drawn = Augmentation(2, 0.25, (SIDE, 2 * SIDE)).draw(np.random.default_rng(0), 20_000)
    for axis, size in enumerate((SIDE, 2 * SIDE)):
        pixels, counts = np.unique(np.rint(drawn.shift[:, axis] * size), return_counts=True)
        np.testing.assert_array_equal(pixels, [-2, -1, 0, 1, 2])
        np.testing.assert_allclose(counts / 20_000, 0.2, atol=0.01)
    assert drawn.flipped.mean() == pytest.approx(0.25, abs=0.01)


def batches(process_index=0, process_count=1, accumulate=1, augmentation=None, views=("a",)):
    source = Source(
        "photos", "image", IMAGES, np.arange(COUNT, dtype=np.int32), tuple("abc"), "sha256:0"
    )
    prepared = ImageView(None, (0.0,), (1 / 255,), None).prepare(source)
    return training_batches(
        source,
        dict.fromkeys(views, prepared),
        batch_size=12,
        accumulate=accumulate,
        seed=3,
        process_index=process_index,
        process_count=process_count,
        buckets=(),
        augmentation=augmentation,
    )


def take(stream, count):
    return [next(stream) for _ in range(count)]


def pixels(batch):
    return batch.views["a"]["images"].reshape(-1, SIDE, SIDE, 3)


SOME = Augmentation(2, 0.5, (SIDE, SIDE))


def test_the_same_image_looks_different_in_each_epoch():
    seen = {}
    for batch in take(batches(augmentation=SOME), 12):
        for index, image in zip(batch.index.reshape(-1), pixels(batch), strict=True):
            seen.setdefault(int(index), set()).add(image.tobytes())
    assert all(len(versions) > 2 for versions in seen.values())


def test_without_augmentation_images_are_as_they_are():
    for batch in take(batches(), 3):
        np.testing.assert_allclose(pixels(batch), IMAGES[batch.index.reshape(-1)], atol=1e-4)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_processes_see_the_parts_of_one_global_batch(accumulate):
    whole = take(batches(accumulate=accumulate, augmentation=SOME), 4)
    halves = [take(batches(i, 2, accumulate, SOME), 4) for i in (0, 1)]
    for batch, *parts in zip(whole, *halves, strict=True):
        joined = jax.tree.map(lambda *leaves: np.concatenate(leaves, axis=1), *parts)
        jax.tree.map(np.testing.assert_array_equal, joined, batch)


def test_accumulation_changes_no_draw():
    for whole, parts in zip(
        take(batches(augmentation=SOME), 3),
        take(batches(accumulate=4, augmentation=SOME), 3),
        strict=True,
    ):
        np.testing.assert_array_equal(pixels(whole), pixels(parts))


def test_a_resumed_stream_goes_on_with_the_same_draws():
    stream = batches(augmentation=SOME)
    take(stream, 3)
    state = stream.get_state()
    wanted = take(stream, 3)
    again = batches(augmentation=SOME)
    again.set_state(state)
    for found, want in zip(take(again, 3), wanted, strict=True):
        jax.tree.map(np.testing.assert_array_equal, found, want)


def test_all_views_show_the_same_part():
    for batch in take(batches(augmentation=SOME, views=("a", "b")), 2):
        np.testing.assert_array_equal(batch.views["a"]["images"], batch.views["b"]["images"])


# The config's section


def test_two_zeros_are_no_augmentation_whatever_the_data():
    assert make_augmentation({"crop": 0, "flip": 0.0}, None) is None
    assert make_augmentation({"crop": 1, "flip": 0.0}, (8, 8)) == Augmentation(1, 0.0, (8, 8))


@pytest.mark.parametrize(
    ("spec", "size", "message"),
    [
        ({"crop": 1}, (8, 8), r"data.augmentation needs option 'flip'"),
        (
            {"crop": 1, "flip": 0.0, "rotate": 1},
            (8, 8),
            r"data.augmentation has no option 'rotate'",
        ),
        ({"crop": 8, "flip": 0.0}, (8, 9), r"crop is a number of pixels from 0 to 7, got 8"),
        ({"crop": -1, "flip": 0.0}, (8, 8), r"crop is a number of pixels from 0 to 7, got -1"),
        ({"crop": 1.5, "flip": 0.0}, (8, 8), r"crop is a number of pixels from 0 to 7, got 1.5"),
        ({"crop": 0, "flip": 1.1}, (8, 8), r"flip is a probability between 0 and 1, got 1.1"),
        (
            {"crop": 1, "flip": 0.5},
            None,
            r"needs images of one size; here crop and flip must be 0, got 1, 0.5",
        ),
    ],
)
def test_what_cannot_be_is_refused(spec, size, message):
    with pytest.raises(ValueError, match=message):
        make_augmentation(spec, size)
