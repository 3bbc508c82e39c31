"""Losses between feature maps `[B, H, W, C]`, one value an example.

Where two maps differ in size, the larger is average-pooled to the smaller's first. Each function
takes `where`, bool `[B, H, W]` of the larger map's size: positions that don't count (padding of
text seen as a `[B, T, 1, D]` map, a frame round a picture) leave both sums and counts; None: all
count."""

import jax
import jax.numpy as jnp
from jaxtyping import Float, Shaped

from kd_jax.core.checks import einsum, masked_mean, normalize, require_equal_shapes
from kd_jax.core.types import Array
from kd_jax.losses.pooling import average_pool, prepare_maps

POSITIONS = (1, 2)


def attention_transfer(
    student_map: Float[Array, "b h w c"],
    teacher_map: Float[Array, "b h2 w2 c2"],
    *,
    p: float = 2,
    where: Shaped[Array, "b _ _"] | None = None,
) -> Float[jax.Array, " b"]:
    """Computes attention transfer: the mean squared difference of normalised spatial attention
    maps.

    An attention map is the mean over channels of `|x|^p`, scaled to length 1 over all positions.
    This is the form of the authors' code. Computed in at least float32. No gradient reaches the
    teacher.

    Args:
      student_map: `[B, H, W, C]`.
      teacher_map: `[B, H', W', C']`; the channels may differ.
      p: at least 1; larger looks at the strongest activations alone.
      where: see the module.

    Returns:
      `[B]` mean over positions; zero where the attention agrees.

    Raises:
      ValueError: if ranks or batches don't fit, a map holds integers, or `p < 1`.

    References:
      Zagoruyko, Komodakis. `Paying More Attention to Attention
      <https://arxiv.org/abs/1612.03928>`_, 2017.
    """
    # Below 1 the power's gradient at 0 is infinite.
    if p < 1:
        raise ValueError(f"p must be at least 1, got {p}")
    # The channels are averaged away, so student and teacher may differ in them.
    student, teacher, counts = prepare_maps(student_map, teacher_map, where, equal_channels=False)
    attention = (
        normalize(jnp.mean(jnp.abs(x) ** p, axis=-1), POSITIONS) for x in (student, teacher)
    )
    return masked_mean(jnp.square(next(attention) - next(attention)), counts, POSITIONS)


def factor_transfer(
    student_map: Float[Array, "b h w c"],
    teacher_map: Float[Array, "b h2 w2 c2"],
    *,
    where: Shaped[Array, "b _ _"] | None = None,
) -> Float[jax.Array, " b"]:
    """Computes factor transfer as RepDistiller has it.

    The mean absolute difference of the normalised mean squares over channels.

    Computed in at least float32. No gradient reaches the teacher.

    Args:
      student_map: `[B, H, W, C]`, what the translator makes of the student's features.
      teacher_map: `[B, H', W', C']`, what the paraphraser makes of the teacher's; the channels may
        differ.
      where: see the module.

    Returns:
      `[B]` mean over positions; zero where the two agree.

    Raises:
      ValueError: if ranks or batches don't fit, or a map holds integers.

    References:
      Kim, Park, Kwak. `Paraphrasing Complex Network: Network Compression via Factor Transfer
      <https://arxiv.org/abs/1802.04977>`_, 2018.
    """
    student, teacher, counts = prepare_maps(student_map, teacher_map, where, equal_channels=False)
    factors = (normalize(jnp.mean(jnp.square(x), axis=-1), POSITIONS) for x in (student, teacher))
    return masked_mean(jnp.abs(next(factors) - next(factors)), counts, POSITIONS)


def hierarchical_context(
    student_map: Float[Array, "b h w c"],
    teacher_map: Float[Array, "b h2 w2 c2"],
    *,
    where: Shaped[Array, "b _ _"] | None = None,
) -> Float[jax.Array, " b"]:
    """Computes ReviewKD's hierarchical context loss.

    Squared differences at full size and average-pooled to 4, 2 and 1.

    The full size weighs 1, each pooled size half of the one before; the sum is divided by that of
    the weights. A size that is not smaller than the map's height is skipped and the halving does
    not advance. Computed in at least float32. No gradient reaches the teacher.

    Args:
      student_map: `[B, H, W, C]`, fused and mapped to the teacher's channels.
      teacher_map: `[B, H, W, C]`, the same shape.
      where: see the module.

    Returns:
      `[B]`; zero where the two agree.

    Raises:
      ValueError: if the shapes differ, are of another rank, or a map holds integers.

    References:
      Chen et al. `Distilling Knowledge via Knowledge Review <https://arxiv.org/abs/2104.09044>`_,
      2021.
    """
    require_equal_shapes(student_map, teacher_map, "map")
    student, teacher, counts = prepare_maps(student_map, teacher_map, where, equal_channels=True)
    _, height, width, _ = student.shape

    def mse(difference: jax.Array, where: jax.Array) -> jax.Array:
        return masked_mean(jnp.mean(jnp.square(difference), axis=-1), where, POSITIONS)

    # Pooling is linear, so the pooled difference is the difference of the pooled maps.
    difference = student - teacher
    loss, weight, total = mse(difference, counts), 1.0, 1.0
    for size in (4, 2, 1):
        if size < height:
            weight /= 2
            # A narrow map may have fewer columns than this, and can't be pooled to more.
            loss += weight * mse(*average_pool(difference, counts, size, min(size, width)))
            total += weight
    return loss / total


def neuron_selectivity(
    student_map: Float[Array, "b h w c"],
    teacher_map: Float[Array, "b h2 w2 c2"],
    *,
    where: Shaped[Array, "b _ _"] | None = None,
) -> Float[jax.Array, " b"]:
    """Computes neuron selectivity transfer: the maximum mean discrepancy of the channels' patterns.

    Each channel's map is scaled to length 1 over positions; the kernel is `k(x, y) = (x . y)^2`.
    Computed in at least float32. No gradient reaches the teacher.

    Args:
      student_map: `[B, H, W, C]`.
      teacher_map: `[B, H', W', C']`; the channels may differ.
      where: see the module.

    Returns:
      `[B]`: mean `k(t, t)` + mean `k(s, s)` - 2 mean `k(s, t)`, means over pairs of channels; zero
      where the channels agree, in any order.

    Raises:
      ValueError: if ranks or batches don't fit, or a map holds integers.

    References:
      Huang, Wang. `Like What You Like: Knowledge Distill via Neuron Selectivity Transfer
      <https://arxiv.org/abs/1707.01219>`_, 2017.
    """
    # Positions that don't count are 0 already, so they add nothing to norms and products.
    student, teacher, _ = prepare_maps(student_map, teacher_map, where, equal_channels=False)
    student, teacher = normalize(student, POSITIONS), normalize(teacher, POSITIONS)

    def kernel(x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.mean(jnp.square(einsum("bhwc,bhwd->bcd", x, y)), axis=(1, 2))

    return kernel(teacher, teacher) + kernel(student, student) - 2 * kernel(student, teacher)


def flow_of_solution(
    student_first: Float[Array, "b _ _ c"],
    student_second: Float[Array, "b _ _ d"],
    teacher_first: Float[Array, "b _ _ c"],
    teacher_second: Float[Array, "b _ _ d"],
    *,
    where: Shaped[Array, "b _ _"] | None = None,
) -> Float[jax.Array, " b"]:
    """Computes FSP: the squared difference of the Gram matrices between two layers' maps.

    These matrices are the flow of the solution.

    A Gram matrix is the mean over positions of `a b^T`, the larger of its two maps average-pooled
    first. Computed in at least float32. No gradient reaches the teacher.

    Args:
      student_first: `[B, H, W, C]`, an earlier layer.
      student_second: `[B, H', W', D]`, a later one.
      teacher_first: `[B, ..., ..., C]`.
      teacher_second: `[B, ..., ..., D]`.
      where: see the module; it must then fit both pairs.

    Returns:
      `[B]` mean over `C D`; zero where the flows agree.

    Raises:
      ValueError: if ranks, batches or the channels of student and teacher don't fit, or a map holds
        integers.

    References:
      Yim et al. `A Gift from Knowledge Distillation
      <https://openaccess.thecvf.com/content_cvpr_2017/html/Yim_A_Gift_From_CVPR_2017_paper.html>`_,
      2017.
    """
    ours = _flow(student_first, student_second, where)
    # The gradient is stopped here, since `_flow` must let it pass for the student.
    theirs = jax.lax.stop_gradient(_flow(teacher_first, teacher_second, where))
    require_equal_shapes(ours, theirs, "Gram matrices")
    return jnp.mean(jnp.square(ours - theirs), axis=(1, 2))


def _flow(
    first: Float[Array, "b _ _ c"],
    second: Float[Array, "b _ _ d"],
    where: Shaped[Array, "b _ _"] | None,
) -> Float[jax.Array, "b c d"]:
    # Checked and pooled like a pair of student and teacher; the gradient to the second passes, as
    # both are one model's.
    checked, _, _ = prepare_maps(first, second, where, equal_channels=False)
    second, _, counts = prepare_maps(second, first, where, equal_channels=False)
    size = jnp.maximum(jnp.sum(counts, axis=POSITIONS, dtype=second.dtype), 1)
    return einsum("bhwc,bhwd->bcd", checked, second) / size[:, None, None]
