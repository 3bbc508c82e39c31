"""How players are hidden: which values change, and what is refused."""

import jax.numpy as jnp
import numpy as np
import pytest

from kd_jax.analysis.masking import hide_tokens, replace_patches, replace_tokens

TEXTS = {
    "input_ids": np.array([[2, 7, 8, 3], [2, 9, 3, 0]], np.int32),
    "attention_mask": np.array([[1, 1, 1, 1], [1, 1, 1, 0]], np.int32),
    "token_type_ids": np.zeros((2, 4), np.int32),
}
KEPT = jnp.array([[False, True, False, False], [False, False, False, False]])
IMAGES = {"images": np.arange(1.0, 2 * 4 * 6 * 2 + 1, dtype=np.float32).reshape(2, 4, 6, 2)}


def test_replaced_tokens_become_the_baseline_but_for_fixed_ones_and_padding():
    view = replace_tokens(baseline_id=1, fixed_ids=(2, 3))(TEXTS, KEPT)
    np.testing.assert_array_equal(view["input_ids"], [[2, 7, 1, 3], [2, 1, 3, 0]])
    assert view["input_ids"].dtype == jnp.int32
    for name in ("attention_mask", "token_type_ids"):
        np.testing.assert_array_equal(view[name], TEXTS[name])


@pytest.mark.parametrize("dtype", [np.int32, bool])
def test_hidden_tokens_leave_the_attention_mask_but_for_fixed_ones(dtype):
    texts = TEXTS | {"attention_mask": TEXTS["attention_mask"].astype(dtype)}
    view = hide_tokens(fixed_ids=(2, 3))(texts, KEPT)
    np.testing.assert_array_equal(view["attention_mask"], [[1, 1, 0, 1], [1, 0, 1, 0]])
    assert view["attention_mask"].dtype == dtype
    for name in ("input_ids", "token_type_ids"):
        np.testing.assert_array_equal(view[name], TEXTS[name])


def test_without_fixed_tokens_all_can_be_hidden():
    view = hide_tokens(fixed_ids=())(TEXTS, jnp.zeros((2, 4), bool))
    np.testing.assert_array_equal(view["attention_mask"], 0)


@pytest.mark.parametrize(
    "baseline",
    [0.5, np.array([0.5, -1], np.float32), np.full((4, 6, 2), 0.25, np.float32)],
    ids=["one", "C", "H W C"],
)
def test_patches_that_do_not_stay_become_the_baseline_row_by_row(baseline):
    kept = jnp.array([[True, False, False, False, False, True], [True] * 6])
    images = replace_patches(grid=(2, 3), baseline=baseline)(IMAGES, kept)["images"]
    want = np.broadcast_to(np.asarray(baseline, np.float32), (2, 4, 6, 2)).copy()
    want[0, :2, :2] = IMAGES["images"][0, :2, :2]
    want[0, 2:, 4:] = IMAGES["images"][0, 2:, 4:]
    want[1] = IMAGES["images"][1]
    np.testing.assert_array_equal(images, want)


@pytest.mark.parametrize(
    ("mask", "view", "kept", "message"),
    [
        (
            replace_tokens(baseline_id=1, fixed_ids=()),
            TEXTS,
            (2, 5),
            "texts of 4 tokens have as many players, got 5",
        ),
        (hide_tokens(fixed_ids=()), TEXTS, (2, 3), "texts of 4 tokens have as many players, got 3"),
        (
            replace_patches(grid=(3, 3), baseline=0.0),
            IMAGES,
            (2, 9),
            r"\(3, 3\) patches doesn.t divide images",
        ),
        (
            replace_patches(grid=(2, 4), baseline=0.0),
            IMAGES,
            (2, 8),
            "patches doesn.t divide images of 4 x 6",
        ),
        (
            replace_patches(grid=(2, 3), baseline=0.0),
            IMAGES,
            (2, 5),
            r"\(2, 3\) has 6 players, got permutations of 5",
        ),
        (
            replace_patches(grid=(2, 3), baseline=np.zeros(6)),
            IMAGES,
            (2, 6),
            r"of \(4, 6, 2\), got \(6,\)",
        ),
        (
            hide_tokens(fixed_ids=()),
            IMAGES,
            (2, 6),
            "reads input_ids and attention_mask; the view has images",
        ),
        (
            replace_tokens(baseline_id=1, fixed_ids=()),
            IMAGES,
            (2, 6),
            "reads input_ids and attention_mask",
        ),
        (
            replace_patches(grid=(2, 3), baseline=0.0),
            TEXTS,
            (2, 6),
            "reads images; the view has attention_mask, inp",
        ),
    ],
)
def test_what_does_not_fit_is_refused(mask, view, kept, message):
    with pytest.raises(ValueError, match=message):
        mask(view, jnp.ones(kept, bool))
