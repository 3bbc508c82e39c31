r"""What the costly losses cost: fused large-vocabulary divergences against the plain ones, CRD
  against its student.

  uv run benchmarks/losses.py [--pairs=30]

512 tokens, a vocabulary of 32,000 and hidden states of width 256; 16,384 negatives for a batch of
64 and banks of 50,000 rows, against the forward and backward pass of ResNet-8 on images of 32x32.
Contenders are interleaved; see `pairs.py` for what is kept and printed."""

import argparse
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from pairs import interleave, show

from kd_jax import losses
from kd_jax.models import registry

TOKENS, WIDTH, VOCABULARY = 512, 256, 32_000
BATCH, EXAMPLES, NEGATIVES, EMBEDDING, CLASSES = 64, 50_000, 16_384, 128, 10
FORMS: dict[str, tuple[Callable[..., jax.Array], Callable[..., jax.Array], dict[str, Any]]] = {
    "soft_target_kl": (losses.fused_soft_target_kl, losses.soft_target_kl, {"temperature": 2.0}),
    "reverse_kl": (losses.fused_reverse_kl, losses.reverse_kl, {"temperature": 2.0}),
    "jensen_shannon": (losses.fused_jensen_shannon, losses.jensen_shannon, {"beta": 0.5}),
}


def draw(seed: int, *shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape) / shape[-1] ** 0.25


def compiled(function: Callable[..., Any], *arguments: Any) -> tuple[Callable[[], None], int]:
    """One call, run to its end, and the bytes of temporary memory it takes."""
    program = jax.jit(function).lower(*arguments).compile()

    def run():
        return jax.block_until_ready(program(*arguments))

    run()
    return run, program.memory_analysis().temp_size_in_bytes


def fused_against_plain(name: str, pairs: int) -> bool:
    fused, plain, settings = FORMS[name]
    student, teacher = (
        losses.Head(draw(seed, TOKENS, WIDTH), draw(seed + 1, WIDTH, VOCABULARY)) for seed in (0, 2)
    )

    def of_logits(student, teacher):
        return jnp.sum(
            plain(student.hidden @ student.kernel, teacher.hidden @ teacher.kernel, **settings)
        )

    ours, our_memory = compiled(
        jax.value_and_grad(lambda s, t: fused(s, t, **settings)), student, teacher
    )
    theirs, their_memory = compiled(jax.value_and_grad(of_logits), student, teacher)
    fast = show(
        f"{name}: fused over plain", interleave(ours, theirs, pairs=pairs, limit=5 * pairs), 1 / 1.2
    )
    share = our_memory / their_memory
    print(
        f"{name}: temporary memory {our_memory / 1e6:.0f} MB of {their_memory / 1e6:.0f} MB,"
        f" {share:.3f} (bound 0.25)"
    )
    return fast and share <= 0.25


def contrast_against_student(pairs: int) -> bool:
    network = registry.build(
        dict(
            name="cifar_resnet",
            num_classes=CLASSES,
            depth=8,
            stem=16,
            widths=(16, 32, 64),
            shortcut="pad",
        )
    )
    images, labels = draw(4, BATCH, 32, 32, 3), jnp.arange(BATCH) % CLASSES
    variables = network.init(jax.random.key(0), images)

    def learn(params):
        output, _ = network.apply(
            {**variables, "params": params}, images, train=True, mutable=["batch_stats"]
        )
        return jnp.mean(losses.cross_entropy(output.logits, labels))

    classes = np.arange(EXAMPLES, dtype=np.int32) % CLASSES
    order = jnp.asarray(np.argsort(classes, kind="stable").astype(np.int32))
    starts = jnp.asarray(
        np.searchsorted(classes[np.asarray(order)], np.arange(CLASSES + 1)).astype(np.int32)
    )
    memory = losses.init_contrast_memory(jax.random.key(1), EXAMPLES, EMBEDDING)

    def contrast(student, teacher, memory, key):
        drawn = losses.sample_negatives(key, labels, order, starts, NEGATIVES)
        values, memory = losses.contrastive_representation(
            student, teacher, jnp.arange(BATCH), drawn, memory
        )
        return jnp.mean(values), memory

    embeddings = draw(5, BATCH, EMBEDDING), draw(6, BATCH, EMBEDDING)
    gradient = jax.value_and_grad(contrast, argnums=(0, 1), has_aux=True)
    ours, _ = compiled(gradient, *embeddings, memory, jax.random.key(2))
    theirs, _ = compiled(jax.value_and_grad(learn), variables["params"])
    samples = interleave(ours, theirs, pairs=pairs, limit=5 * pairs)
    return show("CRD over the student's forward and backward", samples, 2.0)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=30)
    pairs = parser.parse_args().pairs
    held = [fused_against_plain(name, pairs) for name in FORMS] + [contrast_against_student(pairs)]
    sys.exit(0 if all(held) else 1)


if __name__ == "__main__":
    main()
