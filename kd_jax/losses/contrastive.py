"""Contrastive losses: the student's embedding should tell its own example's teacher embedding from
the others'."""

from typing import no_type_check

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Float, Int, Shaped

from kd_jax.core.checks import (
    as_where,
    at_least_float32,
    einsum,
    masked_mean,
    normalize,
    prepare,
    require_equal_shapes,
    require_floating,
    require_positive,
    require_rank,
    require_within,
)
from kd_jax.core.types import Array, Scalar


def info_nce(
    student: Float[Array, "b d"],
    teacher: Float[Array, "b d"],
    *,
    temperature: Scalar = 0.07,
    where: Shaped[Array, " b"] | None = None,
) -> Float[jax.Array, " b"]:
    """Computes InfoNCE: the cross-entropy of picking one's own teacher embedding among the batch's.

    Scores are cosines over the temperature. It sees the whole batch, so under pmap the embeddings
    are gathered first. Computed in at least float32. No gradient reaches the teacher.

    Args:
      student: `[B, D]` embeddings, already mapped to the teacher's width.
      teacher: `[B, D]`, the same shape.
      temperature: `> 0`. May be traced.
      where: `[B]` bool, the examples that count, as anchors and as negatives; None: all.

    Returns:
      `[B]` nats; 0 for examples that don't count, and for one that is alone.

    Raises:
      ValueError: if shapes don't fit, either holds integers, or `temperature` is a Python number <=
        0.

    References:
      van den Oord et al. `Representation Learning with Contrastive Predictive Coding
      <https://arxiv.org/abs/1807.03748>`_, 2018.
    """
    student, teacher = prepare(student, teacher, "embeddings")
    require_rank(student, 2, "student embeddings", "[B, D]")
    require_equal_shapes(student, teacher, "embeddings")
    require_positive(temperature, "temperature")
    rows = as_where(where, student.shape[:1], "example")
    # Cleared before any arithmetic: a NaN would reach every gradient through the products.
    student, teacher = (normalize(jnp.where(rows[:, None], x, 0)) for x in (student, teacher))
    scores = einsum("id,jd->ij", student, teacher) / temperature
    # The least finite number, not -inf: where nothing counts the rows stay finite, and are left out
    # below.
    log_q = jax.nn.log_softmax(jnp.where(rows[None, :], scores, jnp.finfo(scores.dtype).min))
    return jnp.where(rows, -jnp.diagonal(log_q), 0)


# A transformation builds it around whatever it makes of the leaves, so types aren't checked.
@no_type_check
@flax.struct.dataclass
class ContrastMemory:
    """What CRD remembers of every example of the dataset.

    Attributes:
      student: `[N, D]` unit embeddings; row `i` is the dataset's example `i`.
      teacher: `[N, D]` unit embeddings.
      student_normalizer: `[]` of the scores of student embeddings against `teacher`; 0 until the
        first batch sets it.
      teacher_normalizer: `[]` of the scores of teacher embeddings against `student`, likewise.
    """

    student: Float[Array, "n d"]
    teacher: Float[Array, "n d"]
    student_normalizer: Float[Array, ""]
    teacher_normalizer: Float[Array, ""]


def init_contrast_memory(key: jax.Array, examples: int, width: int) -> ContrastMemory:
    """Banks of `examples` rows, uniform within `±sqrt(3 / width)` as in the original, in
    float32."""
    # A uniform of this width has variance 1 / width, so rows have a length of about 1.
    bound = (3 / width) ** 0.5
    banks = (
        jax.random.uniform(k, (examples, width), jnp.float32, -bound, bound)
        for k in jax.random.split(key)
    )
    return ContrastMemory(next(banks), next(banks), jnp.zeros(()), jnp.zeros(()))


def sample_negatives(
    key: jax.Array,
    labels: Int[Array, " b"],
    order: Int[Array, " n"],
    starts: Int[Array, " _"],
    count: int,
) -> Int[jax.Array, "b {count}"]:
    """Draws examples of other classes, with replacement.

    Args:
      key: of the step's random stream.
      labels: `[B]` int classes of the anchors; for one outside `0..C-1` every example is another's.
      order: `[N]` int, all examples of the dataset, sorted by class.
      starts: `[C + 1]` int, where each class begins in `order`; the last is where the last one
        ends.
      count: `K`.

    Returns:
      `[B, K]` int32 examples. If there is only one class, of that class.
    """
    total = order.shape[0]
    # An unlabelled example belongs to no class, so every example is a negative for it.
    known = (labels >= 0) & (labels < starts.shape[0] - 1)
    own = jnp.where(known, labels, 0)
    start, stop = jnp.where(known, starts[own], total), jnp.where(known, starts[own + 1], total)
    others = total - (stop - start)
    # One number for each draw; the others' positions are computed from it without a search.
    drawn = jax.random.uniform(key, (labels.shape[0], count))
    # A draw counts the others only, so it steps over the anchor's own class.
    position = jnp.minimum(
        (drawn * others[:, None]).astype(jnp.int32), jnp.maximum(others - 1, 0)[:, None]
    )
    position = jnp.where(position >= start[:, None], position + (stop - start)[:, None], position)
    return jnp.asarray(order, jnp.int32)[jnp.minimum(position, total - 1)]


def contrastive_representation(
    student: Float[Array, "b d"],
    teacher: Float[Array, "b d"],
    index: Int[Array, " b"],
    negatives: Int[Array, "b k"],
    memory: ContrastMemory,
    *,
    temperature: float = 0.07,
    momentum: float = 0.5,
    where: Shaped[Array, " b"] | None = None,
) -> tuple[Float[jax.Array, " b"], ContrastMemory]:
    """Computes CRD: whether a student and a teacher embedding are of one example, told from noise.

    Noise-contrastive estimation against embeddings that a memory keeps of the whole dataset.

    Each embedding is scored against the other side's bank at its own row and at `K` negatives, `P =
    exp(cosine / temperature) / Z`; with `h = P / (P + K / N)` the loss is `-log h(own) - sum log(1
    - h(negative))` for both sides. `Z` is fixed by the first batch as the mean score times `N`. The
    whole bank is scored by one matrix product and the scores gathered: gathering the rows would be
    several times slower.

    The gradient passes to both embeddings, since the teacher's is a trained projection; stop it at
    the teacher's feature. None reaches the banks. Computed in at least float32. It sees the whole
    batch, so that replicas' banks stay identical: under pmap gather everything first.

    Args:
      student: `[B, D]` embeddings; scaled to length 1 here.
      teacher: `[B, D]`, likewise.
      index: `[B]` int, the examples' rows in the banks.
      negatives: `[B, K]` int, rows of other examples (`sample_negatives`).
      memory: the banks before this batch.
      temperature: `> 0`.
      momentum: in [0, 1), how much of a row stays when it is updated.
      where: `[B]` bool, the examples that count; the others' loss is 0 and their rows stay. None:
        all.

    Returns:
      `[B]` nats, and the banks with the batch's rows moved towards its embeddings; of several
      examples with one row the first one moves it.

    Raises:
      ValueError: if shapes don't fit, embeddings are integers, `temperature <= 0` or `momentum` is
        outside [0, 1].

    References:
      Tian, Krishnan, Isola. `Contrastive Representation Distillation
      <https://arxiv.org/abs/1910.10699>`_, 2020.
    """
    require_floating(student, "student embeddings")
    require_floating(teacher, "teacher embeddings")
    require_equal_shapes(student, teacher, "embeddings")
    require_rank(student, 2, "student embeddings", "[B, D]")
    require_positive(temperature, "temperature")
    require_within(momentum, 0, 1, "momentum")
    batch, width = student.shape
    if (
        memory.student.shape[1] != width
        or index.shape != (batch,)
        or negatives.shape[:1] != (batch,)
    ):
        raise ValueError(
            f"embeddings {student.shape} need index [{batch}], negatives [{batch}, K] and banks [N,"
            f" {width}], got"
            f" {index.shape}, {negatives.shape} and {memory.student.shape}"
        )
    rows = as_where(where, (batch,), "example")
    # Not by `prepare`, which would stop the gradient: the teacher's projection is trained too.
    student, teacher = at_least_float32(student, teacher)
    student, teacher = (normalize(jnp.where(rows[:, None], x, 0)) for x in (student, teacher))
    # The own row comes first: column 0 is the positive one below.
    columns = jnp.concatenate([index[:, None], negatives], axis=1)
    ours, student_z = _contrast(
        student, memory.teacher, columns, memory.student_normalizer, temperature, rows
    )
    theirs, teacher_z = _contrast(
        teacher, memory.student, columns, memory.teacher_normalizer, temperature, rows
    )
    student_bank = _moved(memory.student, student, index, momentum, rows)
    teacher_bank = _moved(memory.teacher, teacher, index, momentum, rows)
    return jnp.where(rows, ours + theirs, 0), ContrastMemory(
        student_bank, teacher_bank, student_z, teacher_z
    )


def _contrast(anchors, bank, columns, normalizer, temperature, rows):
    """Computes one side's loss `[B]`, and its normalizer, set if it was not."""
    examples, count = bank.shape[0], columns.shape[1] - 1
    scores = (
        einsum("bd,nd->bn", anchors, jax.lax.stop_gradient(bank).astype(anchors.dtype))
        / temperature
    )
    scores = jnp.exp(jnp.take_along_axis(scores, columns, axis=1))
    counted = jnp.broadcast_to(rows[:, None], scores.shape)
    # The normalizer is the estimate of a constant, so no gradient may pass through it.
    first = jax.lax.stop_gradient(masked_mean(scores, counted) * examples).astype(normalizer.dtype)
    normalizer = jnp.where(normalizer > 0, normalizer, first)
    # K draws of uniform noise among N examples, hence the ratio K / N.
    noise = count / examples
    # A batch of which no row counts leaves it unset; 1 stands in, as its losses are left out
    # anyway.
    probability = scores / jnp.where(normalizer > 0, normalizer, 1)
    own, others = probability[:, 0], probability[:, 1:]
    # The small number is the original code's, and keeps the fractions finite.
    loss = -jnp.log(own / (own + noise + 1e-7)) - jnp.sum(
        jnp.log(noise / (others + noise + 1e-7)), axis=1
    )
    return loss, normalizer


def _moved(bank, embeddings, index, momentum, rows):
    """Moves the bank's rows of the examples that count; the first of equal indices wins."""
    # The order of two writes to one row is not defined in a scatter, so only one may move it.
    earlier = jnp.tril(index[:, None] == index[None, :], -1) & rows[None, :]
    moves = rows & ~jnp.any(earlier, axis=1)
    new = normalize(
        momentum * bank[index]
        + (1 - momentum) * jax.lax.stop_gradient(embeddings).astype(bank.dtype)
    )
    # An index past the end drops its write; a branch would not work on traced values.
    return bank.at[jnp.where(moves, index, bank.shape[0])].set(new, mode="drop")
