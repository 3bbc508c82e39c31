"""The model card: what a student is, how good, against what, and how to load it; all of it from
results.json."""

from collections.abc import Mapping
from typing import Any

from kd_jax.core.pytree import count_parameters
from kd_jax.export.student import Student
from kd_jax.models import registry


def make(student: Student, *, transformers_class: str | None = None) -> str:
    """Makes the card in Markdown.

    Args:
      student: the model.
      transformers_class: what opens the folder that the card is for; None:
        `kd_jax.models.weights.load.load`.
    """
    # The Hub reads these first lines as YAML, so they have to come before the title.
    head = (
        "---\nlibrary_name: " + ("transformers" if transformers_class else "kd_jax") + "\ntags:\n"
    )
    head += "- knowledge-distillation\n- jax\n---\n"
    experiment = student.results.get("experiment", "an unfinished run")
    options = registry.describe(student.module)
    lines = [
        head,
        f"# {student.name}, of {experiment}",
        "",
        f"Model `{options['name']}`, {count_parameters(student.variables['params']):,} parameters,"
        f" for the classes " + ", ".join(f"`{name}`" for name in student.class_names) + ".",
        "",
        *_results(student),
        *_usage(student, transformers_class),
        *_origin(student),
    ]
    return "\n".join(lines) + "\n"


def _results(student: Student) -> list[str]:
    results = student.results
    # A finished model of an unfinished run can be exported before anything was measured.
    if student.name not in results.get("models", {}):
        return ["The run that this comes from was not finished; nothing was measured.", ""]
    lines = ["| model | learned from | accuracy % | loss | parameters |", "|---|---|---|---|---|"]
    for name in results["order"]:
        lines.append(_row(name, results["models"][name], own=name == student.name))
    lines += ["", f"One seed ({results['seed']}), on the run's evaluation split."]
    for dataset, scores in results.get("evaluations", {}).items():
        lines.append(f"On `{dataset}`: {100 * scores[student.name]['accuracy']:.2f} %.")
    return [*lines, ""]


def _row(name: str, entry: Mapping[str, Any], *, own: bool) -> str:
    shown = f"**{name}**" if own else name
    taught = ", ".join(entry["teachers"]) or "labels"
    return (
        f"| {shown} | {taught} | {100 * entry['accuracy']:.2f} | {entry['loss']:.4f}"
        f" | {entry['parameters']:,} |"
    )


def _usage(student: Student, transformers_class: str | None) -> list[str]:
    # The tokenizer is a file beside the card, and its name in the run means nothing there.
    view = {key: value for key, value in student.description["view"].items() if key != "tokenizer"}
    inputs = f"It reads what this view gives: `{view}`."
    if transformers_class:
        code = [
            f"from transformers import {transformers_class}",
            f'model = {transformers_class}.from_pretrained(".")',
        ]
    else:
        code = ["from kd_jax.models import pretrained", 'module, variables = pretrained.load(".")']
    return ["```python", *code, "```", "", inputs, ""]


def _origin(student: Student) -> list[str]:
    environment = student.results.get("environment", {})
    return [
        f"Weights {student.description['fingerprint']}, commit"
        f" {environment.get('commit') or 'unknown'}, jax"
        f" {environment.get('jax', 'unknown')} on {environment.get('backend', 'unknown')}."
    ]
