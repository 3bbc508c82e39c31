"""The losses as a table: how to call each, what it must return, what it must not depend on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import loss_references as reference
import numpy as np
from scipy import special

Arrays = dict[str, np.ndarray]


def normal(rng, *shape, scale=1.0):
    return rng.normal(scale=scale, size=shape).astype(np.float32)


@dataclass(frozen=True)
class Case:
    """One loss.

    Attributes:
      name: the function's.
      make: `(rng, variant 0..2) -> arrays by argument`, in the function's order.
      shape: arrays -> the documented shape of the result.
      settings: hyperparameters to check, all within range.
      where: what `where` counts: "rows" (leading axes), "positions" (of the larger map) or None.
      least: arrays with student = teacher -> the least value, by the paper; zero unless stated.
      bad: hyperparameters out of range -> part of the message.
      permutes: whether reordering the examples only reorders the result.
    """

    name: str
    make: Callable[[np.random.Generator, int], Arrays]
    shape: Callable[[Arrays], tuple[int, ...]]
    settings: tuple[Mapping[str, Any], ...] = ({},)
    where: str | None = None
    least: Callable[[Arrays], Any] = lambda _: 0.0
    bad: tuple[tuple[Mapping[str, Any], str], ...] = ()
    permutes: bool = True

    def reference(self, arrays: Arrays, **setting):
        return getattr(reference, self.name)(*arrays.values(), **setting)


def first(arrays):
    return next(iter(arrays.values()))


def is_teacher(name):
    return name.startswith("teacher") or name in ("labels", "margin")


LEADING = ((5,), (2, 4), (3, 1, 2))
SIZES = ((4, 6, 6), (3, 8, 5), (2, 1, 7))
PAIRED = {
    "student_map": "teacher_map",
    "student_first": "teacher_first",
    "student_second": "teacher_second",
}


def equal(case, arrays):
    """The arrays with every teacher's replaced by the student's of the same part."""
    if case.name == "topk_kl":
        log_q = np.log(reference.softmax(arrays["student_logits"]))
        kept = np.take_along_axis(log_q, arrays["teacher_indices"], -1).astype(np.float32)
        return arrays | {"teacher_log_probs": kept}
    if case.name == "variational":
        return arrays | {"teacher_map": arrays["student_mean"]}
    if case.name == "deit_hard":
        return arrays | {"teacher_logits": arrays["distillation_logits"]}
    if case.name == "binary_cross_entropy":
        return arrays | {"labels": special.expit(arrays["student_logits"])}
    if case.name in ("squared_error", "huber", "bounded_regression"):
        return arrays | dict.fromkeys(arrays, arrays["student_values"])
    same = {}
    for name in arrays:
        twin = name.replace("teacher", "student")
        same[name] = arrays[twin] if name.startswith("teacher") else arrays[name]
    return same


# Logits


def logits(rng, variant, classes=8):
    shape = (*LEADING[variant], classes)
    return {
        "student_logits": normal(rng, *shape, scale=2),
        "teacher_logits": normal(rng, *shape, scale=2),
    }


def heads(rng, variant):
    found = logits(rng, variant)
    return {
        "distillation_logits": found["student_logits"],
        "teacher_logits": found["teacher_logits"],
    }


def labelled(rng, variant):
    return logits(rng, variant) | {"labels": rng.integers(0, 8, LEADING[variant])}


def kept(rng, variant):
    found = logits(rng, variant, 12)
    indices = np.argsort(-found["teacher_logits"], axis=-1)[..., :4]
    log_p = np.take_along_axis(
        np.log(reference.softmax(found["teacher_logits"])), indices, -1
    ).astype(np.float32)
    return {
        "student_logits": found["student_logits"],
        "teacher_log_probs": log_p,
        "teacher_indices": indices,
    }


def foreign(rng, variant):
    ours, theirs = ((8, 11), (11, 8), (7, 7))[variant]
    leading = LEADING[variant]
    return {
        "student_logits": normal(rng, *leading, ours),
        "teacher_logits": normal(rng, *leading, theirs),
    }


def leading(arrays):
    return first(arrays).shape[:-1]


def scalar(_arrays):
    return ()


def sets(rng, variant):
    """Labels 0, 1 and, as of mixed examples, between."""
    found = logits(rng, variant)
    share = rng.random(found["student_logits"].shape)
    labels = np.where(share < 0.6, np.round(share / 0.6), share).astype(np.float32)
    return {"student_logits": found["student_logits"], "labels": labels}


def least_of_sets(arrays):
    return reference.binary_cross_entropy(arrays["student_logits"], arrays["labels"])


def values(rng, variant):
    found = logits(rng, variant)
    return {"student_values": found["student_logits"], "labels": found["teacher_logits"]}


def bounded(rng, variant):
    found = values(rng, variant)
    teacher = found["labels"] + normal(rng, *found["labels"].shape, scale=2.5)
    return {
        "student_values": found["student_values"],
        "teacher_values": teacher,
        "labels": found["labels"],
    }


TEMPERATURES = ({}, {"temperature": 0.5}, {"temperature": 4.0})
BAD_TEMPERATURE = (
    ({"temperature": 0}, "temperature must be positive, got 0"),
    ({"temperature": -1.0}, "temperature must be positive, got -1.0"),
)
OF_LOGITS = (
    Case("soft_target_kl", logits, leading, TEMPERATURES, bad=BAD_TEMPERATURE),
    Case(
        "binary_cross_entropy",
        sets,
        leading,
        ({}, {"positive_weights": 3.0}),
        least=least_of_sets,
    ),
    Case("binary_soft_target_kl", logits, leading, TEMPERATURES, bad=BAD_TEMPERATURE),
    Case("logit_mse", logits, leading),
    Case("squared_error", values, leading),
    Case(
        "huber",
        values,
        leading,
        ({}, {"delta": 0.3}, {"delta": 4.0}),
        bad=(({"delta": 0}, "delta must be positive, got 0"),),
    ),
    Case(
        "bounded_regression",
        bounded,
        leading,
        ({}, {"margin": 2.0}),
        bad=(({"margin": -1}, "margin must lie between 0 and inf, got -1"),),
    ),
    Case("reverse_kl", logits, leading, TEMPERATURES, bad=BAD_TEMPERATURE),
    Case(
        "jensen_shannon",
        logits,
        leading,
        tuple({"beta": b} for b in (0.0, 0.1, 0.5, 0.9, 1.0)),
        bad=(({"beta": 1.5}, "beta must lie between 0 and 1, got 1.5"),),
    ),
    Case(
        "skew_kl",
        logits,
        leading,
        ({}, {"alpha": 0.0}, {"alpha": 0.7}),
        bad=(({"alpha": -0.1}, "alpha must lie between 0 and 1, got -0.1"),),
    ),
    Case(
        "skew_reverse_kl",
        logits,
        leading,
        ({}, {"alpha": 0.0}, {"alpha": 0.7}),
        bad=(({"alpha": 2}, "alpha must lie between 0 and 1, got 2"),),
    ),
    Case("total_variation", logits, leading),
    Case(
        "deit_hard",
        heads,
        leading,
        least=lambda a: reference.deit_hard(a["distillation_logits"], a["teacher_logits"]),
    ),
    Case(
        "decoupled_kd",
        labelled,
        leading,
        (*TEMPERATURES, {"target_weight": 0.3, "nontarget_weight": 2.0}),
        bad=BAD_TEMPERATURE,
    ),
    Case("standardized_kl", logits, leading, TEMPERATURES, bad=BAD_TEMPERATURE),
    Case(
        "dist",
        logits,
        scalar,
        (*TEMPERATURES, {"inter_weight": 0.2, "intra_weight": 3.0}),
        where="rows",
        bad=BAD_TEMPERATURE,
    ),
    Case("class_correlation", logits, scalar, TEMPERATURES, where="rows", bad=BAD_TEMPERATURE),
    Case("batch_correlation", logits, scalar, TEMPERATURES, where="rows", bad=BAD_TEMPERATURE),
    Case("topk_kl", kept, leading, TEMPERATURES, bad=BAD_TEMPERATURE),
    Case("universal_logit_distance", foreign, leading),
)


# Vectors and maps


def vectors(rng, variant):
    shape = (*LEADING[variant], 6)
    return {"student": normal(rng, *shape), "teacher": normal(rng, *shape)}


def maps(rng, variant, channels=(5, 5), shrink=(False, False)):
    batch, height, width = SIZES[variant]
    smaller = max(1, height // 2), max(1, width - 2)
    sizes = [smaller if small else (height, width) for small in shrink]
    names = ("student_map", "teacher_map")
    return {n: normal(rng, batch, *s, c) for n, s, c in zip(names, sizes, channels, strict=True)}


def uneven(rng, variant):
    """Maps of different channels; at variants 1 and 2 of different sizes, the student's or the
    teacher's the larger."""
    return maps(rng, variant, (5, 3), ((False, False), (False, True), (True, False))[variant])


def flows(rng, variant):
    found = {}
    for owner, size in (("student", variant), ("teacher", (variant + 1) % 3)):
        _, height, width = SIZES[size]
        later = max(1, height // 2), max(1, width // 2)
        found[f"{owner}_first"] = normal(rng, 4, height, width, 3)
        found[f"{owner}_second"] = normal(rng, 4, *later, 2)
    return found


def one_size(rng, variant):
    """FSP with a `where`: student and teacher of one size."""
    _, height, width = SIZES[variant]
    names = [f"{owner}_{part}" for owner in ("student", "teacher") for part in ("first", "second")]
    return {n: normal(rng, 4, height, width, c) for n, c in zip(names, (3, 2, 3, 2), strict=True)}


def with_margin(rng, variant):
    return maps(rng, variant) | {"margin": -np.abs(normal(rng, 5))}


def with_scale(rng, variant):
    found = maps(rng, variant)
    return {
        "student_mean": found["student_map"],
        "log_scale": normal(rng, 5) + 1,
        "teacher_map": found["teacher_map"],
    }


def batch(arrays):
    return first(arrays).shape[:1]


def least_variational(arrays):
    return 0.5 * np.log(np.log1p(np.exp(np.float64(arrays["log_scale"]))) + 1e-5).mean()


def least_overhaul(arrays):
    """At student = teacher what is below the margin counts no more: it is not above its target."""
    return reference.overhaul(arrays["student_map"], arrays["teacher_map"], arrays["margin"])


def least_boundary(arrays):
    return reference.activation_boundary(arrays["student_map"], arrays["teacher_map"])


OF_FEATURES = (
    Case("hidden_mse", vectors, leading),
    Case("normalized_mse", vectors, leading),
    Case("cosine_distance", vectors, leading),
    Case(
        "attention_transfer",
        uneven,
        batch,
        ({}, {"p": 1}, {"p": 4}),
        where="positions",
        bad=(({"p": 0.5}, "p must be at least 1, got 0.5"),),
    ),
    Case("factor_transfer", uneven, batch, where="positions"),
    Case("hierarchical_context", maps, batch, where="positions"),
    Case("neuron_selectivity", uneven, batch, where="positions"),
    Case("flow_of_solution", flows, batch),
    Case("overhaul", with_margin, batch, where="positions", least=least_overhaul),
    Case(
        "activation_boundary",
        maps,
        batch,
        ({}, {"margin": 0.5}),
        where="positions",
        least=least_boundary,
        bad=(({"margin": 0.0}, "margin must be positive, got 0.0"),),
    ),
    Case("variational", with_scale, batch, where="positions", least=least_variational),
)


# Attention scores


def scores(rng, variant):
    rows, heads_, tokens = ((3, 2, 5), (2, 1, 7), (1, 3, 2))[variant]
    mask = np.arange(tokens) < rng.integers(1, tokens + 1, rows)[:, None]
    shape = (rows, heads_, tokens, tokens)
    return {
        "student_scores": normal(rng, *shape),
        "teacher_scores": normal(rng, *shape),
        "mask": mask,
    }


OF_SCORES = (Case("relation_kl", scores, batch), Case("attention_scores_mse", scores, batch))


# Relations and contrast


def embeddings(rng, variant, same=False):
    rows = (5, 4, 6)[variant]
    ours, theirs = ((6,), (2, 3, 1), (4,))[variant], ((6,), (5,), (2, 2))[variant]
    return {
        "student": normal(rng, rows, *ours),
        "teacher": normal(rng, rows, *(ours if same else theirs)),
    }


def same_embeddings(rng, variant):
    return embeddings(rng, variant, same=True)


def flat_embeddings(rng, variant):
    rows, width = ((5, 6), (4, 3), (7, 2))[variant]
    return {"student": normal(rng, rows, width), "teacher": normal(rng, rows, width)}


OF_RELATIONS = (
    Case("rkd_distance", embeddings, scalar, where="rows"),
    Case("rkd_angle", embeddings, scalar, where="rows"),
    Case("similarity_preserving", embeddings, scalar, where="rows"),
    Case("probabilistic_transfer", embeddings, scalar, where="rows"),
    Case("correlation_congruence_adjacent", same_embeddings, scalar, where="rows", permutes=False),
    Case(
        "correlation_congruence_rbf",
        embeddings,
        scalar,
        ({}, {"gamma": 1.0, "order": 3}),
        where="rows",
        bad=(
            ({"gamma": 0.0}, "gamma must be positive and order at least 1, got 0.0 and 2"),
            ({"order": 0}, "gamma must be positive and order at least 1, got 0.4 and 0"),
        ),
    ),
    Case(
        "info_nce",
        flat_embeddings,
        batch,
        ({}, {"temperature": 1.0}),
        where="rows",
        least=lambda a: reference.info_nce(a["student"], a["teacher"]),
        bad=(({"temperature": 0.0}, "temperature must be positive, got 0.0"),),
    ),
)

CASES = (*OF_LOGITS, *OF_FEATURES, *OF_SCORES, *OF_RELATIONS)
