"""Distils in PyTorch, as a process of its own: the rivals of `whole_job.py`.

  python benchmarks/torch_jobs.py SPEC.json

A "plain" job asks the teacher in every step and pads to the longest of a batch. A "cached" one asks
it once, and batches texts by length. SPEC.json is as `whole_job.py` writes it. Nothing of JAX is
imported here, so that its start costs the rivals nothing."""

import itertools
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch.nn import functional
from torch_networks import MeanClassifier, ResNet

Spec = dict[str, Any]
Inputs = dict[str, torch.Tensor]
Item = tuple[Inputs, torch.Tensor, torch.Tensor | None]
"""A batch: the network's arguments, labels, and the teacher's logits where they are known."""


# Networks


def make_network(spec: Spec, role: str) -> torch.nn.Module:
    """Builds the teacher or the student, with the weights that kd_jax's has."""
    tensors = load_file(spec[role]["weights"])
    if spec["task"] == "images":
        network = ResNet(**spec[role]["options"], classes=spec["classes"], project=False)
    else:
        # Imported here, as images don't need it and it takes seconds.
        from transformers import BertConfig, BertModel

        config = BertConfig(**spec[role]["options"])
        network = MeanClassifier(BertModel(config, add_pooling_layer=False), spec["classes"])
    missing, unexpected = network.load_state_dict(tensors, strict=False)
    # Counters of batches and constants are no weights.
    missing = [name for name in missing if not name.endswith(("num_batches_tracked", "_ids"))]
    if missing or unexpected:
        raise ValueError(f"{role}: missing {missing}, unexpected {unexpected}")
    if spec["task"] == "images":
        # PyTorch's type hints know this argument of tensors only.
        network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    return network


def terms(spec: Spec, student: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor):
    """Returns the whole loss: soft targets at a temperature, and cross-entropy with the labels."""
    heat = spec["temperature"]
    soft = functional.kl_div(
        functional.log_softmax(student / heat, -1),
        functional.log_softmax(teacher / heat, -1),
        reduction="batchmean",
        log_target=True,
    )
    hard = functional.cross_entropy(student, labels)
    return (1 - spec["hard"]) * heat**2 * soft + spec["hard"] * hard


def make_optimizer(spec: Spec, network: torch.nn.Module):
    """Builds the optimizer and its schedule, with kd_jax's settings."""
    options = spec["optimizer"]
    parameters = [*network.parameters()]
    # Biases and normalizations don't decay.
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": options["weight_decay"]},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    if options["name"] == "adamw":
        # The fair rival has the fastest form, the plain one what people write.
        fused = True if spec["kind"] == "cached" else None
        optimizer = torch.optim.AdamW(groups, lr=options["learning_rate"], fused=fused)
    else:
        optimizer = torch.optim.SGD(
            groups, lr=options["learning_rate"], momentum=options["momentum"]
        )
    warm, total = spec["warmup_steps"], spec["steps"]

    def rate(step: int) -> float:
        if step < warm:
            return step / warm
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))

    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, rate)


# Data


def read_rows(spec: Spec, column: str) -> list[dict[str, Any]]:
    """Reads the training rows from TFDS's files."""
    import tensorflow_datasets as tfds

    source: Any = tfds.data_source(
        spec["dataset"], split=spec["split"], data_dir=spec["dir"], download=False
    )
    rows = source.__getitems__(range(len(source)))
    return [{"input": row[column], "label": int(row["label"])} for row in rows]


class Texts:
    """Token ids, made once; their batches are padded to a length."""

    def __init__(self, spec: Spec):
        from tokenizers import Tokenizer

        rows = read_rows(spec, "sentence")
        tokenizer = Tokenizer.from_file(spec["tokenizer"])
        tokenizer.no_padding()
        tokenizer.enable_truncation(spec["max_length"])
        encoded = tokenizer.encode_batch([row["input"].decode() for row in rows])
        self.ids = [torch.tensor(each.ids) for each in encoded]
        self.labels = torch.tensor([row["label"] for row in rows])
        self.lengths = np.array([len(each) for each in self.ids])
        self.buckets = np.array(spec["buckets"])

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, row: int) -> int:
        return row

    def collate(self, rows: list[int], length: int | None = None) -> Item:
        """Pads rows to a length, or to the longest of them."""
        longest = length or int(self.lengths[rows].max())
        ids = torch.zeros(len(rows), longest, dtype=torch.long)
        for place, row in enumerate(rows):
            ids[place, : self.lengths[row]] = self.ids[row]
        counts = torch.from_numpy(self.lengths[rows])
        mask = (torch.arange(longest) < counts[:, None]).long()
        return {"input_ids": ids, "attention_mask": mask}, self.labels[rows], None

    def groups(self) -> dict[int, np.ndarray]:
        """Returns the rows of each length that is padded to."""
        of = self.buckets[np.searchsorted(self.buckets, self.lengths)]
        return {int(length): np.flatnonzero(of == length) for length in np.unique(of)}


class Images:
    """Images as bytes; batches are cropped, mirrored and normalized."""

    def __init__(self, spec: Spec):
        rows = read_rows(spec, "image")
        self.images = np.stack([row["input"] for row in rows])
        self.labels = torch.tensor([row["label"] for row in rows])
        self.crop, self.flip = spec["crop"], spec["flip"]
        self.mean, self.std = (np.array(spec[name], np.float32) for name in ("mean", "std"))
        self.rng = np.random.default_rng(spec["seed"])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> int:
        return row

    def collate(self, rows: list[int]) -> Item:
        """Augments rows all at once, which is faster than one by one."""
        images, crop = self.images[rows], self.crop
        size = images.shape[1]
        padded = np.pad(images, ((0, 0), (crop, crop), (crop, crop), (0, 0)))
        corners = self.rng.integers(0, 2 * crop + 1, (2, len(rows)))
        down, right = (corner[:, None] + np.arange(size) for corner in corners)
        mirrored = self.rng.random(len(rows)) < self.flip
        right = np.where(mirrored[:, None], right[:, ::-1], right)
        moved = padded[np.arange(len(rows))[:, None, None], down[:, :, None], right[:, None, :]]
        values = (moved.astype(np.float32) / 255 - self.mean) / self.std
        return {"x": as_images(values)}, self.labels[rows], None


def as_images(values: np.ndarray) -> torch.Tensor:
    """Returns `[B, H, W, C]` as PyTorch has it, `[B, C, H, W]` with the channels last in memory."""
    return torch.from_numpy(values).permute(0, 3, 1, 2)


# Jobs


def plain_batches(data: Any, spec: Spec) -> Iterator[Item]:
    """Yields shuffled batches without end, by PyTorch's own loader."""
    loader = torch.utils.data.DataLoader(
        data, spec["batch_size"], shuffle=True, collate_fn=data.collate
    )
    while True:
        yield from loader


def cached_texts(data: Texts, spec: Spec, ask: Callable[[Inputs], torch.Tensor]) -> Iterator[Item]:
    """Asks the teacher about every text once, then yields batches of one length each."""
    logits, size = torch.empty(len(data), spec["classes"]), spec["batch_size"]
    for length, members in data.groups().items():
        for start in range(0, len(members), size):
            rows = members[start : start + size].tolist()
            logits[rows] = ask(data.collate(rows, length)[0])
    rng, batches = np.random.default_rng(spec["seed"]), []
    for length, members in data.groups().items():
        passes = math.ceil(spec["epochs"] + size / len(members))
        order = np.concatenate([rng.permutation(members) for _ in range(passes)])
        count = math.ceil(len(members) * spec["epochs"] / size)
        batches += [(length, order[n * size : (n + 1) * size].tolist()) for n in range(count)]
    rng.shuffle(batches)
    for length, rows in batches:
        inputs, labels, _ = data.collate(rows, length)
        yield inputs, labels, logits[rows]


def cached_images(
    data: Images, spec: Spec, ask: Callable[[Inputs], torch.Tensor]
) -> Iterator[Item]:
    """Asks the teacher about the batches of the first epochs, and repeats these."""
    epochs = min(spec["repeated"], spec["epochs"])
    count = math.ceil(len(data) * epochs / spec["batch_size"])
    kept = [
        (inputs, labels, ask(inputs))
        for inputs, labels, _ in itertools.islice(plain_batches(data, spec), count)
    ]
    return itertools.cycle(kept)


def distil(spec: Spec) -> dict[str, Any]:
    """Trains the student; returns its last loss, and the seconds of each part."""
    began = time.perf_counter()
    torch.manual_seed(spec["seed"])
    data: Any = Texts(spec) if spec["task"] == "text" else Images(spec)
    teacher: Any = make_network(spec, "teacher").eval()
    student: Any = make_network(spec, "student").train()
    if spec["compile"]:
        teacher, student = torch.compile(teacher), torch.compile(student)
    optimizer, schedule = make_optimizer(spec, student)

    def ask(inputs: Inputs) -> torch.Tensor:
        with torch.inference_mode():
            return teacher(**inputs)

    started = time.perf_counter()
    if spec["kind"] == "plain":
        stream = plain_batches(data, spec)
    else:
        stream = (cached_texts if spec["task"] == "text" else cached_images)(data, spec, ask)
    loss, steps = torch.zeros(()), 0
    for inputs, labels, logits in itertools.islice(stream, spec["steps"]):
        taught = ask(inputs) if logits is None else logits
        # What was made in inference mode can't be saved for a backward pass; a copy can.
        loss = terms(spec, student(**inputs), taught.clone(), labels)
        optimizer.zero_grad()
        loss.backward()
        if spec["optimizer"]["clip_norm"] is not None:
            torch.nn.utils.clip_grad_norm_(student.parameters(), spec["optimizer"]["clip_norm"])
        optimizer.step()
        schedule.step()
        steps += 1
    ended = time.perf_counter()
    torch.save(student.state_dict(), spec["output"])
    return {
        "loss": loss.item(),
        "steps": steps,
        "parts": {"data and networks": started - began, "training": ended - started},
    }


def first_loss(spec: Spec, batch: dict[str, np.ndarray], labels: np.ndarray) -> float:
    """Returns the loss of one batch of kd_jax's before any step, without dropout."""
    teacher, student = (make_network(spec, role).eval() for role in ("teacher", "student"))
    if spec["task"] == "images":
        # No dropout there, and in training its normalizations read the batch.
        inputs = {"x": as_images(batch["images"])}
        student.train()
    else:
        inputs = {
            name: torch.tensor(batch[name]).long() for name in ("input_ids", "attention_mask")
        }
    with torch.no_grad():
        found = terms(spec, student(**inputs), teacher(**inputs), torch.tensor(labels).long())
    return found.item()


if __name__ == "__main__":
    print(json.dumps(distil(json.loads(Path(sys.argv[1]).read_text()))))
