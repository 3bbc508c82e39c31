"""The model card: what a student is, how good, against what, and how to load it; all of it from
results.json."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kd_jax.core.pytree import count_parameters
from kd_jax.data.views.text import MOST_WINDOWS, padding_id
from kd_jax.export.student import Student, task_of
from kd_jax.models import registry
from kd_jax.models.weights.formats import HEAD
from kd_jax.tasks import cell, header, shown

FILE = "README.md"


def make(student: Student, formats: Sequence[str]) -> str:
    """Makes the card of an export in Markdown.

    Args:
      student: the model.
      formats: those that were written.
    """
    usage = _usage_of_ours()
    if "huggingface" in formats:
        usage += ["For transformers see `huggingface/README.md`.", ""]
    if "onnx" in formats:
        usage += _usage_of_onnx(student)
    return _make(student, "kd_jax", usage)


def make_for_transformers(student: Student, transformers_class: str, pooling: str | None) -> str:
    """Makes the card of the folder that transformers opens.

    Args:
      student: the model.
      transformers_class: what opens it.
      pooling: "mean" or "first" where sentence-transformers opens it too; the head lies beside.
    """
    if pooling is None:
        return _make(student, "transformers", _usage_of_transformers(student, transformers_class))
    return _make(student, "sentence-transformers", _usage_of_sentence_encoder(student, pooling))


def _make(student: Student, library: str, usage: Sequence[str]) -> str:
    # The Hub reads these first lines as YAML, so they have to come before the title.
    head = f"---\nlibrary_name: {library}\ntags:\n- knowledge-distillation\n- jax\n---\n"
    experiment = student.results.get("experiment", "an unfinished run")
    options = registry.describe(student.module)
    lines = [
        head,
        f"# {student.name}, of {experiment}",
        "",
        f"Model `{options['name']}`, {count_parameters(student.variables['params']):,} parameters,"
        f" for {_outputs(student)}.",
        "",
        *_results(student),
        *usage,
        *_view(student),
        *_origin(student),
    ]
    return "\n".join(lines) + "\n"


def _outputs(student: Student) -> str:
    task = task_of(student.description)
    if not task.named:
        return f"outputs by {task.predicts}"
    return "the classes " + ", ".join(f"`{name}`" for name in student.class_names)


def _results(student: Student) -> list[str]:
    results = student.results
    # A finished model of an unfinished run can be exported before anything was measured.
    if student.name not in results.get("models", {}):
        return ["The run that this comes from was not finished; nothing was measured.", ""]
    primary = results.get("primary", "accuracy")
    lines = [
        f"| model | learned from | {header(primary)} | loss | parameters |",
        "|---|---|---|---|---|",
    ]
    for name in results["order"]:
        lines.append(_row(name, results["models"][name], primary, own=name == student.name))
    lines += ["", f"One seed ({results['seed']}), on the run's evaluation split."]
    for dataset, scores in results.get("evaluations", {}).items():
        lines.append(f"On `{dataset}`: {shown(primary, scores[student.name][primary])}.")
    return [*lines, ""]


def _row(name: str, entry: Mapping[str, Any], primary: str, *, own: bool) -> str:
    bold = f"**{name}**" if own else name
    metrics = entry.get("metrics", entry)
    untaught = "(as published)" if entry.get("origin") == "as published" else "labels"
    taught = ", ".join(entry["teachers"]) or untaught
    return (
        f"| {bold} | {taught} | {cell(primary, metrics[primary])} | {cell('loss', metrics['loss'])}"
        f" | {entry['parameters']:,} |"
    )


def _usage_of_ours() -> list[str]:
    code = [
        "from kd_jax.models.weights import load",
        "",
        'module, variables = load.load(".")',
    ]
    return [
        "Labels of new inputs, as JSON lines: `kd-jax --stage=predict --workdir=. --input=FILE`."
        " In Python:",
        "",
        *_code(code),
    ]


def _read_out(student: Student, name: str) -> str:
    """Returns the line of code that prints what `logits` say; `name` is that of class `i`."""
    return task_of(student.description).read_out(name)


def _usage_of_transformers(student: Student, transformers_class: str) -> list[str]:
    code = [
        f"from transformers import AutoTokenizer, {transformers_class}",
        "",
        f'model = {transformers_class}.from_pretrained(".")',
    ]
    if student.max_length is None:
        return _code([code[0].replace("AutoTokenizer, ", ""), *code[1:]])
    return _code(
        [
            *code,
            'tokenizer = AutoTokenizer.from_pretrained(".")',
            f"given = tokenizer({_example(student, transformers=True)}, truncation=True,"
            ' padding=True, return_tensors="pt")',
            "logits = model(**given).logits",
            _read_out(student, "model.config.id2label[int(i)]"),
        ]
    )


def _usage_of_sentence_encoder(student: Student, pooling: str) -> list[str]:
    pooled = "(tokens * mask).sum(1) / mask.sum(1)" if pooling == "mean" else "tokens[:, 0]"
    labels = [
        "import torch",
        "from safetensors.torch import load_file",
        "from transformers import AutoModel, AutoTokenizer",
        "",
        'model, tokenizer = AutoModel.from_pretrained("."), AutoTokenizer.from_pretrained(".")',
        f'head = load_file("{HEAD}")',
        f"given = tokenizer({_example(student, transformers=True)}, truncation=True, padding=True,"
        ' return_tensors="pt")',
        "with torch.no_grad():",
        "    tokens = model(**given).last_hidden_state",
        '    mask = given["attention_mask"][..., None]',
        f"    pooled = {pooled}",
        '    logits = pooled @ head["weight"].T + head["bias"]',
        _read_out(student, "model.config.id2label[int(i)]"),
    ]
    embeddings = [
        "from sentence_transformers import SentenceTransformer",
        "",
        f'embeddings = SentenceTransformer(".").encode({_example(student)})',
    ]
    read = "the mean of the tokens' outputs" if pooling == "mean" else "the first token's output"
    if task_of(student.description).predicts == "embedding":
        note = "It opens in sentence-transformers, and its network as `AutoModel`."
        return [note, "", *_code(embeddings)]
    note = f"The network opens as `AutoModel`; its classifier, which reads {read}, is `{HEAD}`."
    return [
        note,
        "",
        "Labels:",
        "",
        *_code(labels),
        "What the classifier reads, as embeddings:",
        "",
        *_code(embeddings),
    ]


def _usage_of_onnx(student: Student) -> list[str]:
    names, shapes = student.class_names, student.shapes(1)
    code = ["import numpy as np", "import onnxruntime"]
    if student.max_length is None:
        height, width, channels = shapes["images"].shape[1:]
        view = student.description["view"]
        mean, std = (np.array(view[key], float).tolist() for key in ("mean", "std"))
        code += [
            "from PIL import Image",
            "",
            f'image = Image.open("picture.png").convert("{"L" if channels == 1 else "RGB"}")',
            f"image = np.asarray(image.resize(({width}, {height}), Image.BILINEAR), np.float32)",
            f"images = image.reshape(1, {height}, {width}, {channels}) / 255",
            f"given = dict(images=((images - {mean}) / {std}).astype(np.float32))",
        ]
        note = "`model.onnx` takes batches of any size."
    else:
        code += [
            "from tokenizers import Tokenizer",
            "",
            f'tokenizer = Tokenizer.from_file("tokenizer.json")  # cuts to {student.max_length}'
            " tokens, pads to the longest",
        ]
        note = "`model.onnx` takes batches of any size and texts of any number of tokens up to"
        note += f" {student.max_length}."
        if len(student.lengths) == 1:
            padding = padding_id(student.ready_tokenizer())
            token = student.ready_tokenizer().id_to_token(padding)
            code += [
                f"tokenizer.enable_padding(length={student.max_length}, pad_id={padding},"
                f" pad_token={token!r})"
            ]
            note = "`model.onnx` takes batches of any size, and texts that are padded to"
            note += f" {student.max_length} tokens."
        code += [
            f"texts = tokenizer.encode_batch({_example(student)})",
            "given = dict(",
            *(f"    {name}={_ONNX_INPUTS[name]}," for name in shapes),
            ")",
        ]
    code += [
        'session = onnxruntime.InferenceSession("model.onnx")',
        '(logits,) = session.run(["logits"], given)',
        _read_out(student, f"{names}[i]"),
    ]
    return [note, "", *_code(code)]


_ONNX_INPUTS = {
    "input_ids": "np.array([text.ids for text in texts], np.int32)",
    "attention_mask": "np.array([text.attention_mask for text in texts], bool)",
    "token_type_ids": "np.array([text.type_ids for text in texts], np.int32)",
}


def _example(student: Student, *, transformers: bool = False) -> str:
    """Returns the code of two inputs: texts, or pairs where the student reads pairs."""
    if isinstance(student.description["columns"], str):
        return '["a text", "another, longer text"]'
    # transformers takes the first and the second texts apart.
    if transformers:
        return '["a text", "a question"], ["its second part", "its answer"]'
    return '[("a text", "its second part"), ("a question", "its answer")]'


def _code(lines: Sequence[str]) -> list[str]:
    return ["```python", *lines, "```", ""]


def _view(student: Student) -> list[str]:
    # The tokenizer is a file beside the card, and its name in the run means nothing there.
    view = {key: value for key, value in student.description["view"].items() if key != "tokenizer"}
    lines = [f"It reads what this view gives: `{view}`.", ""]
    if view.get("long") == "head_tail":
        told = (
            f"Of a text of more than {view['max_length']} tokens it reads the first quarter of as"
        )
        told += (
            " many and the last three quarters, as `kd-jax --stage=predict` gives them; the code"
        )
        lines += [f"{told} above gives its beginning.", ""]
    if view.get("long") == "windows":
        told = (
            f"A longer text is read in up to {MOST_WINDOWS} parts of {view['max_length']} tokens,"
            " and its outputs are the means over them, as `kd-jax --stage=predict` gives them; the"
            " code"
        )
        lines += [f"{told} above reads the first part.", ""]
    return lines


def _origin(student: Student) -> list[str]:
    environment = student.results.get("environment", {})
    return [
        f"Weights {student.description['fingerprint']}, commit"
        f" {environment.get('commit') or 'unknown'}, jax"
        f" {environment.get('jax', 'unknown')} on {environment.get('backend', 'unknown')}."
    ]
