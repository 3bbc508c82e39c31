"""Every loss once more, from its paper's formula: float64, NumPy and SciPy, loops where the paper
  has sums.

Nothing of the library is used. `where` arguments are handled by leaving rows or positions out
before anything else."""

import itertools
import math

import numpy as np
from scipy import special


def softmax(z, tau=1.0):
    return special.softmax(np.float64(z) / tau, axis=-1)


def kl(p, q):
    return special.rel_entr(p, q).sum(-1)


def unit(x, axis=-1):
    return x / np.linalg.norm(x, axis=axis, keepdims=True)


# Logits


def cross_entropy(student, labels):
    log_q = special.log_softmax(np.float64(student), axis=-1)
    if np.issubdtype(labels.dtype, np.integer):
        return -np.take_along_axis(log_q, labels[..., None], -1)[..., 0]
    return -(np.float64(labels) * log_q).sum(-1)


def soft_target_kl(student, teacher, temperature=1.0):
    return temperature**2 * kl(softmax(teacher, temperature), softmax(student, temperature))


def binary_cross_entropy(student, labels, positive_weights=1.0):
    q, y = special.expit(np.float64(student)), np.float64(labels)
    w = np.broadcast_to(np.float64(positive_weights), q.shape)
    return (special.rel_entr(y, q) * w + special.rel_entr(1 - y, 1 - q)).mean(-1) + (
        special.entr(y) * w + special.entr(1 - y)
    ).mean(-1)


def binary_soft_target_kl(student, teacher, temperature=1.0):
    q, p = (special.expit(np.float64(z) / temperature) for z in (student, teacher))
    return temperature**2 * (special.rel_entr(p, q) + special.rel_entr(1 - p, 1 - q)).mean(-1)


def squared_error(student, labels):
    return ((np.float64(student) - np.float64(labels)) ** 2).mean(-1)


def logit_mse(student, teacher):
    return squared_error(student, teacher)


def huber(student, labels, delta=1.0):
    return special.huber(delta, np.float64(student) - np.float64(labels)).mean(-1)


def bounded_regression(student, teacher, labels, margin=0.0):
    ours, theirs = (((np.float64(x) - np.float64(labels)) ** 2).sum(-1) for x in (student, teacher))
    return np.where(ours + margin > theirs, ours, 0.0)


def reverse_kl(student, teacher, temperature=1.0):
    return temperature**2 * kl(softmax(student, temperature), softmax(teacher, temperature))


def jensen_shannon(student, teacher, beta=0.5):
    q, p = softmax(student), softmax(teacher)
    if beta == 0:
        return kl(p, q)
    if beta == 1:
        return kl(q, p)
    m = beta * p + (1 - beta) * q
    return beta * kl(p, m) + (1 - beta) * kl(q, m)


def skew_kl(student, teacher, alpha=0.1):
    q, p = softmax(student), softmax(teacher)
    return kl(p, alpha * p + (1 - alpha) * q)


def skew_reverse_kl(student, teacher, alpha=0.1):
    q, p = softmax(student), softmax(teacher)
    return kl(q, (1 - alpha) * p + alpha * q)


def total_variation(student, teacher):
    return np.abs(softmax(teacher) - softmax(student)).sum(-1) / 2


def deit_hard(head, teacher):
    return cross_entropy(head, teacher.argmax(-1))


# The structure of logits


def decoupled_kd(
    student, teacher, labels, temperature=4.0, target_weight=1.0, nontarget_weight=8.0
):
    found = np.zeros(labels.shape)
    for row in np.ndindex(labels.shape):
        q, p, c = (
            softmax(student[row], temperature),
            softmax(teacher[row], temperature),
            labels[row],
        )
        others_q, others_p = np.delete(q, c), np.delete(p, c)
        target = kl(np.array([p[c], others_p.sum()]), np.array([q[c], others_q.sum()]))
        rest = kl(others_p / others_p.sum(), others_q / others_q.sum())
        found[row] = temperature**2 * (target_weight * target + nontarget_weight * rest)
    return found


def standardized_kl(student, teacher, temperature=2.0):
    def standardize(z):
        z = np.float64(z)
        return (z - z.mean(-1, keepdims=True)) / (z.std(-1, ddof=1, keepdims=True) + 1e-7)

    return soft_target_kl(standardize(student), standardize(teacher), temperature)


def _pearson(a, b):
    a, b = a - a.mean(), b - b.mean()
    return a @ b / (np.linalg.norm(a) * np.linalg.norm(b) + 1e-8)


def dist(student, teacher, temperature=1.0, inter_weight=1.0, intra_weight=1.0):
    classes = student.shape[-1]
    q, p = (softmax(z, temperature).reshape(-1, classes) for z in (student, teacher))
    inter = 1 - np.mean([_pearson(q[b], p[b]) for b in range(len(q))])
    intra = 1 - np.mean([_pearson(q[:, k], p[:, k]) for k in range(classes)])
    return temperature**2 * (inter_weight * inter + intra_weight * intra)


def class_correlation(student, teacher, temperature=4.0):
    classes = student.shape[-1]
    q, p = (softmax(z, temperature).reshape(-1, classes) for z in (student, teacher))
    return np.square(p.T @ p - q.T @ q).sum() / classes


def batch_correlation(student, teacher, temperature=4.0):
    q, p = (softmax(z, temperature).reshape(-1, z.shape[-1]) for z in (student, teacher))
    return np.square(p @ p.T - q @ q.T).sum() / len(q)


# Vocabularies


def topk_kl(student, teacher_log_probs, teacher_indices, temperature=1.0):
    found = np.zeros(student.shape[:-1])
    for row in np.ndindex(found.shape):
        q, kept = softmax(student[row], temperature), teacher_indices[row]
        p = np.exp(np.float64(teacher_log_probs[row]))
        q = np.append(q[kept], np.delete(q, kept).sum())
        found[row] = temperature**2 * kl(np.append(p, 1 - p.sum()), q)
    return found


def universal_logit_distance(student, teacher):
    q, p = (np.sort(softmax(z), axis=-1)[..., ::-1] for z in (student, teacher))
    found = 0.0
    for rank in range(max(q.shape[-1], p.shape[-1])):
        left = q[..., rank] if rank < q.shape[-1] else 0
        right = p[..., rank] if rank < p.shape[-1] else 0
        found = found + np.abs(left - right)
    return found


# Vectors


def hidden_mse(student, teacher):
    return np.square(np.float64(student) - teacher).mean(-1)


def normalized_mse(student, teacher):
    return np.square(unit(np.float64(student)) - unit(np.float64(teacher))).sum(-1)


def cosine_distance(student, teacher):
    return 1 - (unit(np.float64(student)) * unit(np.float64(teacher))).sum(-1)


# Maps: `where` [B, H, W] at the larger map's size


def _pool(x, where, height, width):
    """Adaptive average pooling, one example, one bin at a time, over the positions that count."""
    found, counts = np.zeros((height, width, x.shape[-1])), np.zeros((height, width), bool)
    for i, j in np.ndindex(height, width):
        rows = slice(i * x.shape[0] // height, math.ceil((i + 1) * x.shape[0] / height))
        columns = slice(j * x.shape[1] // width, math.ceil((j + 1) * x.shape[1] / width))
        inside = x[rows, columns][where[rows, columns]]
        if len(inside):
            found[i, j], counts[i, j] = inside.mean(0), True
    return found, counts


def _common(student, teacher, where):
    """One example's maps at their smaller size as [positions that count, C]."""
    size = [min(a, b) for a, b in zip(student.shape[:2], teacher.shape[:2], strict=True)]
    maps, masks = [], []
    for x in (student, teacher):
        mask = (
            where
            if where.shape == x.shape[:2]
            else _pool(where[..., None] * 1.0, np.ones_like(where), *size)[0] > 0
        )
        pooled, counts = _pool(np.float64(x), mask.reshape(x.shape[:2]), *size)
        maps.append(pooled)
        masks.append(counts)
    kept = masks[0] & masks[1]
    return maps[0][kept], maps[1][kept]


def _each(function, first, second, where):
    where = np.ones(np.maximum(first.shape[:3], second.shape[:3]), bool) if where is None else where
    return np.array(
        [function(*_common(a, b, w)) for a, b, w in zip(first, second, where, strict=True)]
    )


def attention_transfer(student, teacher, p=2, where=None):
    def attention(x):
        found = np.mean(np.abs(x) ** p, axis=-1)
        return found / np.linalg.norm(found)

    return _each(
        lambda s, t: np.square(attention(s) - attention(t)).mean(), student, teacher, where
    )


def factor_transfer(student, teacher, where=None):
    def factor(x):
        found = np.mean(x**2, axis=-1)
        return found / np.linalg.norm(found)

    return _each(lambda s, t: np.abs(factor(s) - factor(t)).mean(), student, teacher, where)


def hierarchical_context(student, teacher, where=None):
    where = np.ones(student.shape[:3], bool) if where is None else where
    found = []
    for s, t, w in zip(np.float64(student), np.float64(teacher), where, strict=True):
        loss, weight, total = np.square(s - t)[w].mean(), 1.0, 1.0
        for size in (4, 2, 1):
            if size >= s.shape[0]:
                continue
            weight /= 2
            (small_s, kept), (small_t, _) = (
                _pool(x, w, size, min(size, x.shape[1])) for x in (s, t)
            )
            loss += weight * np.square(small_s - small_t)[kept].mean()
            total += weight
        found.append(loss / total)
    return np.array(found)


def neuron_selectivity(student, teacher, where=None):
    def mean_kernel(x, y):
        return np.mean([(a @ b) ** 2 for a in x.T for b in y.T])

    def one(s, t):
        s, t = s / np.linalg.norm(s, axis=0), t / np.linalg.norm(t, axis=0)
        return mean_kernel(t, t) + mean_kernel(s, s) - 2 * mean_kernel(s, t)

    return _each(one, student, teacher, where)


def flow_of_solution(student_first, student_second, teacher_first, teacher_second, where=None):
    def flow(first, second):
        return _each(lambda a, b: a.T @ b / len(a), first, second, where)

    difference = flow(student_first, student_second) - flow(teacher_first, teacher_second)
    return np.square(difference).mean((1, 2))


def overhaul(student, teacher, margin, where=None):
    def one(s, t):
        target = np.maximum(t, np.float64(margin))
        return np.where((s > target) | (target > 0), (s - target) ** 2, 0).sum()

    return _each(one, student, teacher, where)


def activation_boundary(student, teacher, margin=1.0, where=None):
    def one(s, t):
        off = np.where(t <= 0, np.maximum(s + margin, 0) ** 2, 0)
        on = np.where(t > 0, np.maximum(margin - s, 0) ** 2, 0)
        return (off + on).sum()

    return _each(one, student, teacher, where)


def variational(student, log_scale, teacher, where=None):
    variance = np.log1p(np.exp(np.float64(log_scale))) + 1e-5
    return _each(
        lambda s, t: 0.5 * ((s - t) ** 2 / variance + np.log(variance)).mean(),
        student,
        teacher,
        where,
    )


# Attention scores


def relation_kl(student, teacher, mask):
    found = np.zeros(len(mask))
    for b, valid in enumerate(np.asarray(mask, bool)):
        kept = np.flatnonzero(valid)
        rows = [
            kl(softmax(teacher[b, h, i, kept]), softmax(student[b, h, i, kept]))
            for h in range(student.shape[1])
            for i in kept
        ]
        found[b] = np.sum(rows) / (student.shape[1] * len(kept))
    return found


def attention_scores_mse(student, teacher, mask):
    found = np.zeros(len(mask))
    for b, valid in enumerate(np.asarray(mask, bool)):
        kept = np.ix_(range(student.shape[1]), np.flatnonzero(valid), np.flatnonzero(valid))
        found[b] = np.square(np.float64(student[b]) - teacher[b])[kept].mean()
    return found


# Relations


def _huber(x):
    return 0.5 * x**2 if abs(x) < 1 else abs(x) - 0.5


def _flat(x):
    return np.float64(x).reshape(len(x), -1)


def rkd_distance(student, teacher):
    def distances(x):
        found = np.array([[np.linalg.norm(a - b) for b in x] for a in x])
        return found / found[found > 0].mean()

    difference = distances(_flat(student)) - distances(_flat(teacher))
    return np.mean([_huber(x) for x in difference.ravel()])


def rkd_angle(student, teacher):
    def cosine(x, i, j, k):
        if i == j or k == j:
            return 0.0
        return unit(x[i] - x[j]) @ unit(x[k] - x[j])

    s, t = _flat(student), _flat(teacher)
    triplets = itertools.product(range(len(s)), repeat=3)
    return np.mean([_huber(cosine(s, *ijk) - cosine(t, *ijk)) for ijk in triplets])


def similarity_preserving(student, teacher):
    s, t = (unit(x @ x.T) for x in (_flat(student), _flat(teacher)))
    return np.square(s - t).sum() / len(s) ** 2


def probabilistic_transfer(student, teacher):
    def neighbours(x):
        similarities = (unit(x) @ unit(x).T + 1) / 2
        return similarities / similarities.sum(1, keepdims=True)

    s, t = neighbours(_flat(student)), neighbours(_flat(teacher))
    return np.mean(t * np.log((t + 1e-7) / (s + 1e-7)))


def correlation_congruence_adjacent(student, teacher):
    delta = np.abs(_flat(student) - _flat(teacher))
    return np.mean([a @ b for a, b in itertools.pairwise(delta)])


def correlation_congruence_rbf(student, teacher, gamma=0.4, order=2):
    def kernel(x):
        cosine = unit(x) @ unit(x).T
        return sum(
            np.exp(-2 * gamma) * (2 * gamma) ** p / math.factorial(p) * cosine**p
            for p in range(order + 1)
        )

    return np.square(kernel(_flat(student)) - kernel(_flat(teacher))).mean()


# Contrast


def info_nce(student, teacher, temperature=0.07):
    s, t = unit(np.float64(student)), unit(np.float64(teacher))
    return np.array([-special.log_softmax(t @ s[b] / temperature)[b] for b in range(len(s))])


def contrastive_representation(
    student, teacher, index, negatives, bank_s, bank_t, temperature=0.07, momentum=0.5
):
    """Losses, banks and normalizers after a first batch."""
    s, t, bank_s, bank_t = (
        unit(np.float64(student)),
        unit(np.float64(teacher)),
        np.float64(bank_s),
        np.float64(bank_t),
    )
    examples, noise = len(bank_s), negatives.shape[1] / len(bank_s)
    losses, normalizers = np.zeros(len(s)), []
    for anchors, bank in ((s, bank_t), (t, bank_s)):
        rows = np.concatenate([index[:, None], negatives], 1)
        scores = np.exp(np.einsum("bd,bkd->bk", anchors, bank[rows]) / temperature)
        normalizers.append(scores.mean() * examples)
        p = scores / normalizers[-1]
        losses += -np.log(p[:, 0] / (p[:, 0] + noise + 1e-7)) - np.log(
            noise / (p[:, 1:] + noise + 1e-7)
        ).sum(1)
    old_s, old_t = bank_s.copy(), bank_t.copy()
    for b in reversed(range(len(s))):  # The first of equal indices is written last.
        bank_s[index[b]] = unit(momentum * old_s[index[b]] + (1 - momentum) * s[b])
        bank_t[index[b]] = unit(momentum * old_t[index[b]] + (1 - momentum) * t[b])
    return losses, bank_s, bank_t, normalizers
