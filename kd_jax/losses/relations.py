"""Losses between the relations of a batch's examples: the widths of student and teacher may differ.

They see the whole batch, so under pmap the embeddings are gathered over devices first. Each
function flattens what follows the first axis and takes `where`, bool `[B]`: the examples that
count; the others' pairs and triplets leave both sums and counts. None: all count. A batch without
any gives 0."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Float, Shaped

from kd_jax.core.checks import einsum, huber, masked_mean, normalize, safe_norm
from kd_jax.core.types import Array, Scalar
from kd_jax.losses.pairs import differences, pairs_of, prepare_rows

EPSILON = 1e-7
"""PKT's, in the logarithm's fraction."""


def rkd_distance(
    student: Float[Array, "b ..."],
    teacher: Float[Array, "b ..."],
    *,
    where: Shaped[Array, " b"] | None = None,
) -> Float[jax.Array, ""]:
    """Computes relational KD by distances, a Huber loss between the batch's pairwise distances.

    Each side's are divided by their own mean.

    The mean is over the positive distances; two examples that differ by rounding alone are at
    distance 0. Computed in at least float32. No gradient reaches the teacher.

    Args:
      student: `[B, ...]` embeddings.
      teacher: `[B, ...]`; what follows `B` may differ.
      where: see the module.

    Returns:
      `[]` mean over all `B^2` pairs, the diagonal included; zero where the distances agree up to a
      factor.

    Raises:
      ValueError: if either holds integers, or batches or `where` don't fit.

    References:
      Park et al. `Relational Knowledge Distillation <https://arxiv.org/abs/1904.05068>`_, 2019.
    """
    student, teacher, rows = prepare_rows(student, teacher, where)
    pairs = pairs_of(rows)

    def distances(x: jax.Array) -> jax.Array:
        # The diagonal and repeated examples are at distance 0, where a plain norm's gradient is
        # NaN.
        found = jnp.where(pairs, safe_norm(differences(x)), 0)
        # The paper divides by the mean of the positive distances, so repeated examples don't shrink
        # it.
        mean = masked_mean(found, found > 0)
        return found / jnp.where(mean > 0, mean, 1)

    return masked_mean(huber(distances(student) - distances(teacher)), pairs)


def rkd_angle(
    student: Float[Array, "b ..."],
    teacher: Float[Array, "b ..."],
    *,
    where: Shaped[Array, " b"] | None = None,
) -> Float[jax.Array, ""]:
    """Computes relational KD by angles, a Huber loss between the angles of all triplets of
    examples.

    The cosines are taken at the middle point.

    Two equal points, to rounding, have cosine 0 with everything. Computed in at least float32, in
    `O(B^3)` memory. No gradient reaches the teacher.

    Args:
      student: `[B, ...]` embeddings.
      teacher: `[B, ...]`; what follows `B` may differ.
      where: see the module.

    Returns:
      `[]` mean over all `B^3` triplets, those with repeated points included; zero where the angles
      agree.

    Raises:
      ValueError: if either holds integers, or batches or `where` don't fit.

    References:
      Park et al. `Relational Knowledge Distillation <https://arxiv.org/abs/1904.05068>`_, 2019.
    """
    student, teacher, rows = prepare_rows(student, teacher, where)

    def cosines(x: jax.Array) -> jax.Array:
        # A zero difference has no direction; it stays zero and so do its cosines.
        directions = normalize(differences(x))
        return einsum("jid,jkd->jik", directions, directions)

    # A triplet counts only where all three of its points do.
    triplets = rows[:, None, None] & pairs_of(rows)[None]
    return masked_mean(huber(cosines(student) - cosines(teacher)), triplets)


def similarity_preserving(
    student: Float[Array, "b ..."],
    teacher: Float[Array, "b ..."],
    *,
    where: Shaped[Array, " b"] | None = None,
) -> Float[jax.Array, ""]:
    """Computes SP: the squared difference of the batch's Gram matrices, each row scaled to length
    1.

    Computed in at least float32. No gradient reaches the teacher.

    Args:
      student: `[B, ...]` embeddings or maps.
      teacher: `[B, ...]`; what follows `B` may differ.
      where: see the module.

    Returns:
      `[]` sum over pairs, over `B^2`; zero where the similarities agree up to a factor in each row.

    Raises:
      ValueError: if either holds integers, or batches or `where` don't fit.

    References:
      Tung, Mori. `Similarity-Preserving Knowledge Distillation
      <https://arxiv.org/abs/1907.09682>`_, 2019.
    """
    student, teacher, rows = prepare_rows(student, teacher, where)
    # Rows of length 1 make the loss independent of the features' scale.
    grams = (normalize(einsum("id,jd->ij", x, x)) for x in (student, teacher))
    return masked_mean(jnp.square(next(grams) - next(grams)), pairs_of(rows))


def probabilistic_transfer(
    student: Float[Array, "b ..."],
    teacher: Float[Array, "b ..."],
    *,
    where: Shaped[Array, " b"] | None = None,
) -> Float[jax.Array, ""]:
    """Computes PKT, a divergence of the examples' similarities.

    They are read as the probability that one example is another's neighbour.

    Cosine similarities moved to [0, 1], each row divided by its sum: `t` and `s`. The mean of `t
    log((t + eps) / (s + eps))` with `eps = 1e-7`. Computed in at least float32. No gradient reaches
    the teacher.

    Args:
      student: `[B, ...]` embeddings.
      teacher: `[B, ...]`; what follows `B` may differ.
      where: see the module.

    Returns:
      `[]` mean over `B^2` pairs; zero where the similarities agree.

    Raises:
      ValueError: if either holds integers, or batches or `where` don't fit.

    References:
      Passalis, Tefas. `Learning Deep Representations with Probabilistic Knowledge Transfer
      <https://arxiv.org/abs/1803.10837>`_, 2018.
    """
    student, teacher, rows = prepare_rows(student, teacher, where)
    pairs = pairs_of(rows)

    def neighbours(x: jax.Array) -> jax.Array:
        x = normalize(x)
        similarities = jnp.where(pairs, (einsum("id,jd->ij", x, x) + 1) / 2, 0)
        # Rows that don't count sum to 0, and must not be divided by it.
        total = jnp.sum(similarities, axis=1, keepdims=True)
        return similarities / jnp.where(total > 0, total, 1)

    s, t = neighbours(student), neighbours(teacher)
    # PKT's small number keeps the logarithm finite where a similarity is 0.
    return masked_mean(t * jnp.log((t + EPSILON) / (s + EPSILON)), pairs)


def correlation_congruence_adjacent(
    student: Float[Array, " b *d"],
    teacher: Float[Array, " b *d"],
    *,
    where: Shaped[Array, " b"] | None = None,
) -> Float[jax.Array, ""]:
    """Computes RepDistiller's correlation congruence, products of the deviations of batch
    neighbours.

    With `d_b = |s_b - t_b|`, the mean over `b` of `sum(d_b d_(b+1))`. Rows that don't count are
    passed over, so the ones beside them become neighbours. Computed in at least float32. No
    gradient reaches the teacher.

    Args:
      student: `[B, ...]` embeddings, already mapped to the teacher's width.
      teacher: `[B, ...]`, the same shape.
      where: see the module.

    Returns:
      `[]` mean over the `B - 1` pairs of neighbours; zero where the two agree, or there is no pair.

    Raises:
      ValueError: if either holds integers, or the shapes or `where` don't fit.

    References:
      Peng et al. `Correlation Congruence for Knowledge Distillation
      <https://arxiv.org/abs/1904.01802>`_, 2019.
    """
    student, teacher, rows = prepare_rows(student, teacher, where)
    if student.shape != teacher.shape:
        raise ValueError(
            f"student and teacher embeddings must have one shape, got {student.shape},"
            f" {teacher.shape}"
        )
    # Rows that count come first, in their order.
    deviations = jnp.abs(student - teacher)[jnp.argsort(~rows, stable=True)]
    products = jnp.sum(deviations[:-1] * deviations[1:], axis=1)
    return masked_mean(products, jnp.arange(1, rows.shape[0]) < jnp.sum(rows))


def correlation_congruence_rbf(
    student: Float[Array, "b ..."],
    teacher: Float[Array, "b ..."],
    *,
    gamma: Scalar = 0.4,
    order: int = 2,
    where: Shaped[Array, " b"] | None = None,
) -> Float[jax.Array, ""]:
    """Computes the paper's correlation congruence, of the batch's Gaussian kernel matrices.

    Their squared difference.

    The kernel of vectors of length 1, `exp(-g |x - y|^2)`, expanded to `order`: `exp(-2 g) sum_p (2
    g)^p / p! (x . y)^p`. Computed in at least float32. No gradient reaches the teacher.

    Args:
      student: `[B, ...]` embeddings.
      teacher: `[B, ...]`; what follows `B` may differ.
      gamma: `g > 0`. May be traced.
      order: highest power, at least 1.
      where: see the module.

    Returns:
      `[]` mean over `B^2` pairs; zero where the cosines agree.

    Raises:
      ValueError: if either holds integers, batches or `where` don't fit, `order < 1`, or `gamma` is
        a Python number <= 0.

    References:
      Peng et al. `Correlation Congruence for Knowledge Distillation
      <https://arxiv.org/abs/1904.01802>`_, 2019.
    """
    if order < 1 or (isinstance(gamma, (int, float)) and gamma <= 0):
        raise ValueError(f"gamma must be positive and order at least 1, got {gamma} and {order}")
    student, teacher, rows = prepare_rows(student, teacher, where)

    def kernel(x: jax.Array) -> jax.Array:
        x = normalize(x)
        cosine = einsum("id,jd->ij", x, x)
        # A Taylor series cut off at `order`, which the paper uses in place of the exact kernel.
        powers = [(2 * gamma) ** p / math.factorial(p) * cosine**p for p in range(order + 1)]
        return jnp.exp(-2 * jnp.asarray(gamma, x.dtype)) * sum(powers[1:], start=powers[0])

    return masked_mean(jnp.square(kernel(student) - kernel(teacher)), pairs_of(rows))
