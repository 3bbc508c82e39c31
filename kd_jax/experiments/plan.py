"""Plans an experiment: which models there are, what each learns from, in which order they train."""

from collections.abc import Collection, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from kd_jax.config.fill import fill_resolved
from kd_jax.config.hashing import difference
from kd_jax.config.inherit import seed_group_of
from kd_jax.config.names import LABELLED, TRAIN, TRANSFER, TRUSTED
from kd_jax.config.order import groups_in_order
from kd_jax.config.schema import EMBEDDINGS, FROM_MODEL, OUTPUTS, ModelPlan, Plan, check_config
from kd_jax.config.teachers import (
    EMA,
    PEER,
    check_average,
    check_condition,
    check_members,
    check_peers,
)
from kd_jax.data.evaluation_sets import expand
from kd_jax.data.run_datasets import view_name
from kd_jax.experiments.transfer_sets.generate import check_source
from kd_jax.models import registry, word_embeddings
from kd_jax.models.projectors.conditioning import PROBABILITIES
from kd_jax.models.weights.open import OWN
from kd_jax.objective.objective import check_terms, for_task
from kd_jax.tasks import Task, make_task
from kd_jax.teachers import build_ensemble, stored
from kd_jax.training.writers import check_names


def make_plan(config: Mapping[str, Any]) -> Plan:
    """Checks a config and orders its models.

    Args:
      config: resolved, as plain Python values; a key that is absent counts as its default.

    Raises:
      ValueError: in one line, for a key or value that the schema doesn't have, unknown or circular
        teachers, sets that can't be made, or an unfair comparison.
    """
    # The order matters: the schema checks filled configs, and all below trusts the schema.
    config = fill_resolved(config)
    check_config(config)
    check_names(config["logging"]["writers"])
    task = make_task(config.get("task", "classification"), config.get("primary"))
    if not task.one_class:
        _check_task(config, task)
    else:
        _check_label(config)
    expand(config["evaluations"])
    _check_windows(config)
    for name, section in (config.get(TRANSFER) or {}).items():
        _check_labels_of_set(f"{TRANSFER}.{name}", section, task)
    for section in config["models"].values():
        if section.get("objective"):
            section["objective"] = for_task(section["objective"], task)
    models = {
        name: _plan_model(name, section, config["models"], task)
        for name, section in config["models"].items()
    }
    transfer, trusted = dict(config.get(TRANSFER) or {}), dict(config.get(TRUSTED) or {})
    # Names come before the order, which would fail on an unknown one without a clear message.
    _check_sets(transfer, trusted, models)
    _check_comparison(config["compare"], models)
    makers = _makers(transfer, trusted)
    needed = {name: _needed(model, makers) for name, model in models.items()}
    order = groups_in_order(needed, {name: model.peers for name, model in models.items()})
    # Who is in a group is known only now.
    for group in order:
        _check_starts([models[name] for name in group])
    groups = tuple(tuple(models[name] for name in group) for group in order)
    asked = frozenset(name for names in needed.values() for name in names)
    return Plan(config, groups, transfer, trusted, task, asked)


def _plan_model(
    name: str, section: Mapping[str, Any], sections: Mapping[str, Any], task: Task
) -> ModelPlan:
    decay, peers = check_average(name, section), check_peers(name, section, sections)
    objective = dict(section.get("objective") or {})
    # Averages and peers live in the same training, so they aren't earlier models.
    teachers = tuple(
        teacher for teacher in section.get("teachers", ()) if not teacher.startswith((EMA, PEER))
    )
    for teacher in teachers:
        _check_named(f"models.{name}.teachers", teacher, sections)
    cached = tuple(section.get("cached", ()))
    # A table of outputs without a student that reads it would be computed for nothing.
    if strangers := sorted(set(cached) - set(teachers)):
        raise ValueError(
            f"models.{name}.cached names {', '.join(strangers)}; its teachers are"
            f" {', '.join(teachers)}"
        )
    # A model can't start from itself, so its own name isn't among the known ones.
    if (start := section["model"].get(FROM_MODEL)) is not None:
        _check_named(f"models.{name}.model.{FROM_MODEL}", start, sections.keys() - {name})
    _check_embeddings(name, section, sections)
    members = check_members(name, section, sections)
    outputs = _check_outputs(name, section, sections)
    # What needs no data is refused before any is read.
    try:
        check_terms(objective, task)
        if members:
            build_ensemble.check_options(section["model"], task)
        elif outputs:
            stored.check_options(section["model"], task)
        elif "name" in section["model"]:
            registry.check(word_embeddings.with_width(section["model"]), task.predicts)
    except ValueError as error:
        raise ValueError(f"models.{name}: {error}") from None
    # Only a model that comes with weights can do without an objective.
    used_as_is = "pretrained" in section["model"] or section.get("restore") or members or outputs
    # Weights at random teach nothing, but who says so may use them.
    used_as_is = used_as_is or section.get("allow_weak", False)
    if not objective and not used_as_is:
        raise ValueError(
            f"models.{name} has no objective: give it one, or pretrained weights, or restore=..."
        )
    return ModelPlan(
        name,
        dict(section["model"]),
        dict(section["view"]),
        section["dtype"],
        teachers,
        cached,
        objective,
        dict(section["training"]),
        section.get("restore"),
        seed_group_of(sections, name),
        members,
        tuple(section.get("data", (TRAIN,))),
        decay,
        check_condition(name, section, teachers),
        peers,
        section.get("allow_weak", False),
        _check_cached_as(name, section, cached, task),
    )


def _check_cached_as(
    name: str, section: Mapping[str, Any], cached: Sequence[str], task: Task
) -> dict[str, Any]:
    """Returns how the logits of cached teachers are kept; refuses it where none is cached, and what
    is wrong for logits that don't exclude one another."""
    found = {key: value for key, value in (section.get("cached_as") or {}).items() if value}
    if found and not cached:
        # What a model that is like another one takes over from it isn't asked for.
        if section.get("like"):
            return {}
        teachers = ", ".join(section.get("teachers", ())) or "none"
        raise ValueError(
            f"models.{name}.cached_as says how cached teachers are kept, and models.{name}.cached"
            f" names none; its teachers are {teachers}"
        )
    # What isn't kept has an equal share of what is left of the probability.
    if found.get("top_k") and not task.softmax:
        raise ValueError(
            f"models.{name}.cached_as.top_k is for outputs of which one is right, and those of the"
            f" task {task.name!r} are not; cached_as.dtype='float16' keeps them in fewer bits"
        )
    return found


def _check_embeddings(name: str, section: Mapping[str, Any], sections: Mapping[str, Any]) -> None:
    """Refuses word embeddings that are taken over from where there are none of these words."""
    try:
        word_embeddings.check_options(section["model"])
    except ValueError as error:
        raise ValueError(f"models.{name}.{error}") from None
    cut = section["view"].get("vocabulary", "whole") != "whole"
    if cut and "pretrained" in section["model"]:
        raise ValueError(
            f"models.{name}.view.vocabulary is cut, and its pretrained weights have a row for every"
            f" token; leave it out, or take over their words alone by model.{EMBEDDINGS}"
        )
    start = section["model"].get(EMBEDDINGS, {}).get(FROM_MODEL)
    if start is None:
        return
    key = f"models.{name}.model.{EMBEDDINGS}.{FROM_MODEL}"
    _check_named(key, start, sections.keys() - {name})
    if "members" in sections[start]["model"]:
        raise ValueError(
            f"{key} is {start!r}, an ensemble, which has no word embeddings of its own"
        )
    # Rows of another tokenizer would be of other words, and nothing would show it.
    ours, theirs = ({**each["view"]} for each in (section, sections[start]))
    for option in ("tokenizer", "vocabulary_size"):
        if ours.get(option) != theirs.get(option):
            raise ValueError(
                f"{key} is {start!r}, whose view.{option} is {theirs.get(option)!r}, and this"
                f" model's is {ours.get(option)!r}"
            )
    if theirs.get("vocabulary", "whole") != "whole":
        raise ValueError(f"{key} is {start!r}, whose view.vocabulary is cut: name one with a whole")


def _check_outputs(name: str, section: Mapping[str, Any], sections: Mapping[str, Any]) -> bool:
    """Tells whether only a model's outputs are known, and refuses what needs more of it."""
    if OUTPUTS not in section["model"]:
        others = {
            "model.members": section["model"].get("members") or (),
            f"model.{FROM_MODEL}": (section["model"].get(FROM_MODEL),),
            f"model.{EMBEDDINGS}.{FROM_MODEL}": (
                (section["model"].get(EMBEDDINGS) or {}).get(FROM_MODEL),
            ),
            "condition.on": ((section.get("condition") or {}).get("on"),),
        }
        for key, named in others.items():
            for other in named:
                if OUTPUTS in sections.get(other, {}).get("model", {}):
                    raise ValueError(
                        f"models.{name}.{key} names {other!r}, of which only outputs on the data"
                        f" are known"
                    )
        return False
    owner = f"models.{name}"
    if others := sorted({"name", "pretrained", FROM_MODEL} & section["model"].keys()):
        raise ValueError(f"{owner}.model has {others[0]!r} and {OUTPUTS!r}; give one of them")
    if section.get("objective") or section.get("teachers") or section.get("restore"):
        raise ValueError(
            f"{owner} is a file of outputs: it has no objective, no teachers and nothing to restore"
        )
    return True


def _check_label(config: Mapping[str, Any]) -> None:
    """Refuses several columns of labels where an example has one class."""
    sections = {"data": config["data"]}
    sections |= {f"evaluations.{name}": each or {} for name, each in config["evaluations"].items()}
    for owner, section in sections.items():
        label = section.get("label")
        if isinstance(label, tuple | list) and len(label) > 1:
            raise ValueError(
                f"{owner}.label names {len(label)} columns, and an example has one class; for sets"
                f" of classes say task='multilabel', for numbers task='regression'"
            )


CLASSES_ONLY = ("contrastive_representation", "attribution_matching")
"""Terms that draw negatives or explanations by the class of an example."""


def _check_task(config: Mapping[str, Any], task: Task) -> None:
    """Refuses what needs one class an example."""

    def refuse(key: str) -> None:
        raise ValueError(f"{key} needs one class an example, and the task is {task.name!r}")

    views = {view_name(model["view"]) for model in config["models"].values()}
    if task.masks is not None and len(views) > 1:
        raise ValueError(
            f"models: all need one view for task {task.name!r}, as the tokens that are hidden are"
            f" those of a tokenizer; there are {len(views)}"
        )
    if config.get(TRUSTED):
        refuse(TRUSTED)
    for name, each in config["evaluations"].items():
        for key in ("label_map", "label_ranges"):
            if (each or {}).get(key) is not None:
                refuse(f"evaluations.{name}.{key}")
    for name, model in config["models"].items():
        _check_mixing(f"models.{name}.training.mixing", model["training"].get("mixing"), task)
        if (model.get("condition") or {}).get("output") == PROBABILITIES and task.kind != "classes":
            refuse(f"models.{name}.condition.output={PROBABILITIES!r}")
        for term, given in (model.get("objective") or {}).items():
            if given["term"] in CLASSES_ONLY:
                refuse(f"models.{name}.objective.{term}")


def _check_windows(config: Mapping[str, Any]) -> None:
    """Refuses what reads single tokens where texts come in windows."""
    views = [model["view"] for model in config["models"].values()]
    if not any(view.get("long") == "windows" for view in views):
        return
    for name, model in config["models"].items():
        if model["training"].get("mixing"):
            raise ValueError(
                f"models.{name}.training.mixing must be None: texts in windows (view.long) aren't"
                f" mixed"
            )
        for term, given in (model.get("objective") or {}).items():
            if given["term"] == "attribution_matching":
                raise ValueError(
                    f"models.{name}.objective.{term} explains tokens, and a view.long is 'windows'"
                )


def _check_labels_of_set(path: str, section: Mapping[str, Any], task: Task) -> None:
    """Refuses labels that a teacher of the task doesn't give, and choices among them."""
    labels, there = section["labels"], (*task.teachable, "none")
    if labels not in there:
        raise ValueError(
            f"{path}.labels of task {task.name!r} can be {' or '.join(map(repr, there))}, got"
            f" {labels!r}"
        )
    softened = labels == "soft" and task.kind in ("classes", "sets")
    # For classes one-hot labels and none are the same at any temperature; older configs give one.
    same = labels in ("hard", "none") and task.one_class
    if section["temperature"] != 1 and not (softened or same):
        raise ValueError(f"{path}.temperature must be 1, as there are no probabilities to soften")
    if section["per_class"] is not None and not task.one_class:
        raise ValueError(
            f"{path}.per_class must be None: an example of task {task.name!r} isn't of one class"
        )
    if section["confidence"] and (task.kind not in ("classes", "sets") or task.masks is not None):
        raise ValueError(
            f"{path}.confidence must be 0: a teacher of task {task.name!r} doesn't say how sure it"
            f" is"
        )


def _check_mixing(path: str, section: Mapping[str, Any] | None, task: Task) -> None:
    if not section:
        return
    if not task.mixes:
        raise ValueError(
            f"{path} must be None: an example of task {task.name!r} has several predictions, and"
            f" those of two examples can't be mixed"
        )
    if section["candidates"] > 1 and task.kind not in ("classes", "sets"):
        raise ValueError(
            f"{path}.candidates must be 1: a teacher of task {task.name!r} doesn't say how sure it"
            f" is"
        )


def _check_named(path: str, name: str, known: Collection[str]) -> None:
    if name not in known:
        raise ValueError(f"{path} names {name!r}; there are {', '.join(sorted(known))}")


def _check_starts(group: Sequence[ModelPlan]) -> None:
    """Refuses peers that would begin as copies and, on the same batches, stay copies."""
    # The same seed and architecture give the same weights, and the same batches keep them equal.
    for one, other in combinations(group, 2):
        if (one.seed_group, one.model) == (other.seed_group, other.model):
            raise ValueError(
                f"models.{one.name} and models.{other.name} train together and would start from"
                f" the same weights, as models `like` {one.seed_group} do: make one `like` the"
                " other, its peer"
            )


def _needed(model: ModelPlan, makers: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Returns the models that must be finished before this one begins.

    `makers`: set's name -> the models that it waits for.
    """
    return (
        *model.teachers,
        *model.members,
        *model.starts,
        # Whoever learns from a set waits for the model that labels or filters it.
        *(maker for name in model.data for maker in makers.get(name, ())),
    )


def _check_comparison(compare: Mapping[str, str], models: Mapping[str, ModelPlan]) -> None:
    for role, name in compare.items():
        _check_named(f"compare.{role}", name, models)
    student, baseline = models[compare["student"]], models[compare["baseline"]]
    for role, model in (("student", student), ("baseline", baseline)):
        _check_computed(f"compare.{role}", model)
    # Only what teaches the student may differ, or the gain would have a second cause.
    for aspect in ("model", "view", "dtype", "training"):
        ours, theirs = getattr(student, aspect), getattr(baseline, aspect)
        if ours != theirs and difference(ours, theirs):
            raise ValueError(
                f"compare: student {student.name!r} and baseline {baseline.name!r} differ in"
                f" {aspect} ({difference(ours, theirs)}); the comparison would not be fair"
            )


def _check_sets(
    transfer: Mapping[str, Any], trusted: Mapping[str, Any], models: Mapping[str, ModelPlan]
) -> None:
    """Checks what sets name of the models, and models of the sets."""
    # Models name sets of both kinds in one list, so a name may mean one of them only.
    if both := sorted(transfer.keys() & trusted.keys()):
        raise ValueError(
            f"{TRANSFER} and {TRUSTED} both have a set {both[0]!r}; give each its own name"
        )
    for kind, sets in ((TRANSFER, transfer), (TRUSTED, trusted)):
        for name in sets:
            # The name becomes that of a folder and of a TFDS dataset, which allow little else.
            fits = name.isascii() and name.isidentifier() and name.islower()
            if not fits or name in (TRAIN, LABELLED):
                raise ValueError(
                    f"{kind}.{name}: a set's name is made of small letters, digits and _, and isn't"
                    f" {TRAIN!r} or {LABELLED!r}"
                )
    for name, spec in transfer.items():
        owner = f"{TRANSFER}.{name}"
        try:
            check_source(spec["source"])
        except ValueError as error:
            raise ValueError(f"{owner}: {error}") from None
        _check_named(f"{owner}.teacher", spec["teacher"], models)
        _check_named(f"{owner}.base", spec.get("base", TRAIN), {TRAIN, *trusted})
        _check_computed(f"{owner}.teacher", models[spec["teacher"]])
    for name, spec in trusted.items():
        _check_named(f"{TRUSTED}.{name}.judge", spec["judge"], models)
        _check_computed(f"{TRUSTED}.{name}.judge", models[spec["judge"]])
        # Folds only serve the search for label errors.
        if spec["label_errors"] and spec["folds"]:
            _check_folds(f"{TRUSTED}.{name}.folds", models[spec["judge"]])
    for model in models.values():
        _check_data(f"models.{model.name}.data", model.data, transfer, trusted)


def _check_computed(path: str, model: ModelPlan) -> None:
    """Refuses a model of which only outputs are known, where it would be asked for others."""
    if model.outputs is not None:
        raise ValueError(
            f"{path} names {model.name!r}, of which only outputs on the data are known"
        )


def _makers(transfer: Mapping[str, Any], trusted: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Returns set's name -> models that must be finished before it is made."""
    # A transfer set that grows from a filtered set waits for that one's judge too.
    makers = {name: (spec["judge"],) for name, spec in trusted.items()}
    return makers | {
        name: (spec["teacher"], *makers.get(spec.get("base", TRAIN), ()))
        for name, spec in transfer.items()
    }


def _check_folds(owner: str, judge: ModelPlan) -> None:
    """Refuses to score held-out rows by a model that may know their labels by another way."""
    if not judge.objective:
        raise ValueError(
            f"{owner} must be 0: the judge {judge.name!r} has no objective to learn by"
        )
    # Weights in our own format come from an earlier run, which may have seen these labels.
    folder = Path(str(judge.model.get("pretrained", ""))).expanduser()
    if "pretrained" in judge.model and any((folder / name).is_file() for name in OWN):
        raise ValueError(
            f"{owner}: the judge {judge.name!r} starts from {folder}, a model that was trained on"
            " examples with labels, maybe these; name one that starts at random or from published"
            " weights"
        )
    if judge.teachers or judge.peers or judge.data != (TRAIN,) or judge.starts:
        raise ValueError(
            f"{owner}: the judge {judge.name!r} has teachers, peers, another model's weights or"
            " data of its own, and so may know the labels of rows held out; name a model that"
            " learns from the training split alone"
        )


def _check_data(
    owner: str, data: tuple[str, ...], transfer: Mapping[str, Any], trusted: Mapping[str, Any]
) -> None:
    if not data or len(set(data)) < len(data):
        raise ValueError(f"{owner} names one or more different sets, got {data}")
    known = (TRAIN, LABELLED, *sorted(transfer.keys() | trusted.keys()))
    if unknown := [name for name in data if name not in known]:
        raise ValueError(f"{owner} names {unknown[0]!r}; there are {', '.join(known)}")
    # These are parts of the training split, so two of them together would repeat rows.
    overlapping = [name for name in data if name in (TRAIN, LABELLED) or name in trusted]
    if len(overlapping) > 1:
        raise ValueError(
            f"{owner} names {' and '.join(overlapping)}, which share training rows; name one of"
            " them"
        )
