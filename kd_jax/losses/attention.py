"""Losses between attention scores of transformers, before mask and softmax, one value an
example."""

import jax
import jax.numpy as jnp
from jaxtyping import Float, Shaped

from kd_jax.core.checks import (
    at_least_float32,
    einsum,
    masked_mean,
    masked_sum,
    prepare,
    require_equal_shapes,
    require_rank,
)
from kd_jax.core.types import Array


def _prepare_scores(student_scores: Array, teacher_scores: Array, mask: Array):
    """Returns the scores in at least float32, zero at pairs that don't count, and the mask as
    bool.
    """
    student, teacher = prepare(student_scores, teacher_scores, "scores")
    require_rank(student, 4, "student scores", "[B, heads, T, T]")
    require_equal_shapes(student, teacher, "scores")
    if mask.shape != (student.shape[0], student.shape[3]) or student.shape[2] != student.shape[3]:
        raise ValueError(
            f"scores [B, heads, T, T] need a mask [B, T], got {student.shape} and {mask.shape}"
        )
    valid = jnp.asarray(mask).astype(bool)
    # Padding has scores too, in rows and in columns, and they mean nothing.
    pairs = valid[:, None, :, None] & valid[:, None, None, :]
    return jnp.where(pairs, student, 0), jnp.where(pairs, teacher, 0), valid


def self_relations(
    vectors: Float[Array, "b h t d"], heads: int
) -> Float[jax.Array, "b {heads} t t"]:
    """Computes MiniLMv2's relations of queries, keys or values among themselves: scaled dot
    products.

    The heads are joined and split into `heads` others, so that student and teacher may have any
    number and width.

    Args:
      vectors: `[B, h, T, d]`, one kind of one block.
      heads: how many relation heads; divides `h d`.

    Returns:
      `[B, heads, T, T]` in at least float32.

    Raises:
      ValueError: if the rank is another or `heads` doesn't divide the width.
    """
    require_rank(vectors, 4, "vectors", "[B, heads, T, D]")
    batch, count, length, size = vectors.shape
    if isinstance(heads, bool) or not isinstance(heads, int) or heads < 1 or (count * size) % heads:
        raise ValueError(
            f"heads must divide the width {count * size} of all heads together, got {heads!r}"
        )
    # In bfloat16 close dot products would round to the same number.
    (wide,) = at_least_float32(vectors)
    split = jnp.swapaxes(wide, 1, 2).reshape(batch, length, heads, count * size // heads)
    return einsum("bqhd,bkhd->bhqk", split, split) * split.shape[-1] ** -0.5


def relation_kl(
    student_scores: Float[Array, "b heads t t"],
    teacher_scores: Float[Array, "b heads t t"],
    mask: Shaped[Array, "b t"],
) -> Float[jax.Array, " b"]:
    """Computes MiniLM's relation loss, `KL(teacher || student)` of two relation matrices' softmaxed
    rows.

    The matrices are scaled scores of queries with keys (MiniLM), or of queries, keys or values
    among themselves (MiniLMv2). Keys that the mask excludes take no part in the softmax. Computed
    in at least float32. No gradient reaches the teacher.

    Args:
      student_scores: `[B, heads, T, T]`, rows are queries.
      teacher_scores: `[B, heads, T, T]`, the same shape: relation heads are counted alike.
      mask: `[B, T]` bool or int, nonzero where a token counts.

    Returns:
      `[B]` nats, the mean over heads and valid queries; zero where the two agree or no token
      counts.

    Raises:
      ValueError: if the shapes don't fit, or the scores are integers.

    References:
      Wang et al. `MiniLMv2 <https://arxiv.org/abs/2012.15828>`_, 2021.
    """
    student, teacher, valid = _prepare_scores(student_scores, teacher_scores, mask)
    # The least finite number, not -inf: a row without any valid key stays finite, and is left out
    # below.
    least = jnp.finfo(student.dtype).min
    keys = valid[:, None, None, :]
    log_q, log_p = (
        jax.nn.log_softmax(jnp.where(keys, scores, least)) for scores in (student, teacher)
    )
    # Excluded keys have probability 0 but huge logarithms; the mask keeps them out for certain.
    nats = masked_sum(
        jnp.exp(log_p) * (log_p - log_q), jnp.broadcast_to(keys, log_p.shape), axis=-1
    )
    # A mean over valid queries, so that long texts don't weigh more.
    return masked_mean(nats, jnp.broadcast_to(valid[:, None, :], nats.shape), axis=(1, 2))


def attention_scores_mse(
    student_scores: Float[Array, "b heads t t"],
    teacher_scores: Float[Array, "b heads t t"],
    mask: Shaped[Array, "b t"],
) -> Float[jax.Array, " b"]:
    """Computes TinyBERT's attention loss: the mean squared difference of the scores before the
    softmax.

    Computed in at least float32. No gradient reaches the teacher.

    Args:
      student_scores: `[B, heads, T, T]`, rows are queries.
      teacher_scores: `[B, heads, T, T]`, the same shape.
      mask: `[B, T]` bool or int, nonzero where a token counts.

    Returns:
      `[B]` mean over heads and pairs of a valid query and a valid key; zero where the two agree or
      no token counts.

    Raises:
      ValueError: if the shapes don't fit, or the scores are integers.

    References:
      Jiao et al. `TinyBERT <https://arxiv.org/abs/1909.10351>`_, 2020.
    """
    student, teacher, valid = _prepare_scores(student_scores, teacher_scores, mask)
    # A mean over all pairs would shrink with the amount of padding.
    pairs = jnp.broadcast_to(valid[:, None, :, None] & valid[:, None, None, :], student.shape)
    return masked_mean(jnp.square(student - teacher), pairs, axis=(1, 2, 3))
