r"""Times the convolutions of a ResNet for 32 x 32 images, one by one: XLA against PyTorch.

  uv pip install torch && uv run --no-sync benchmarks/convolutions.py [--batch=64] [--samples=20]

Each of 3 x 3 taps, forward, its gradient by the input ("input") and by the kernel ("kernel"), with
XLA set up for images by `training/xla_flags.py`. Two other ways of writing them in jax are timed
too: "columns", all patches side by side and one matrix product, and "shifts", the sum of nine
products. It shows whether another way would be faster, and has no bound."""

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

SHAPES = [(32, 3, 16, 1), (32, 16, 16, 1), (32, 16, 32, 2), (16, 32, 32, 1), (16, 32, 64, 2)]
SHAPES += [(8, 64, 64, 1)]
"""Height and width, channels in and out, stride."""

PARTS = ("forward", "input", "kernel")

PAUSE = 0.3
"""Seconds between two contenders."""


def convolution(x: Any, kernel: Any, stride: int) -> Any:
    import jax

    layout = ("NHWC", "HWIO", "NHWC")
    pads = [(1, 1), (1, 1)]
    return jax.lax.conv_general_dilated(x, kernel, (stride, stride), pads, dimension_numbers=layout)


def shifted(x: Any, stride: int) -> list[Any]:
    """Returns what each of the nine taps sees."""
    import jax.numpy as jnp

    height, width = x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    taps = [(i, j) for i in range(3) for j in range(3)]
    return [padded[:, i : i + height : stride, j : j + width : stride] for i, j in taps]


def columns(x: Any, kernel: Any, stride: int) -> Any:
    import jax.numpy as jnp

    return jnp.concatenate(shifted(x, stride), -1) @ kernel.reshape(-1, kernel.shape[-1])


def shifts(x: Any, kernel: Any, stride: int) -> Any:
    products = [
        seen @ tap
        for seen, tap in zip(shifted(x, stride), kernel.reshape(9, *kernel.shape[2:]), strict=True)
    ]
    return sum(products[1:], products[0])


def of_jax(write: Callable[..., Any], shape: tuple[int, ...], batch: int) -> list[Callable]:
    """Returns the three parts of a convolution, ready to be timed."""
    import jax

    size, channels, outputs, stride = shape
    x = jax.random.normal(jax.random.key(0), (batch, size, size, channels))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, channels, outputs))
    call = partial(write, stride=stride)
    given = convolution(x, kernel, stride)
    parts = [
        jax.jit(lambda x, kernel, _: call(x, kernel)),
        jax.jit(lambda x, kernel, given: jax.vjp(lambda x: call(x, kernel), x)[1](given)),
        jax.jit(lambda x, kernel, given: jax.vjp(lambda k: call(x, k), kernel)[1](given)),
    ]
    return [lambda part=part: jax.block_until_ready(part(x, kernel, given)) for part in parts]


def of_torch(shape: tuple[int, ...], batch: int) -> list[Callable]:
    import torch

    size, channels, outputs, stride = shape
    x = torch.randn(batch, channels, size, size)
    kernel = torch.randn(outputs, channels, 3, 3)

    def forward() -> Any:
        return torch.nn.functional.conv2d(x, kernel, stride=stride, padding=1)

    given, pair = forward(), [stride, stride]

    def backward(mask: list[bool]) -> Any:
        return torch.ops.aten.convolution_backward(
            given, x, kernel, [0], pair, [1, 1], [1, 1], False, [0, 0], 1, mask
        )

    masks = ([True, False, False], [False, True, False])
    return [forward, *(partial(backward, mask) for mask in masks)]


def milliseconds(calls: dict[str, Callable], samples: int) -> dict[str, float]:
    """Returns medians of calls, of which each takes half of its samples in turn."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for name in [*calls, *reversed(calls)]:
        # Threads of another library wait actively for a while, and would be measured as well.
        time.sleep(PAUSE)
        for number in range(samples // 2 + 3):
            began = time.perf_counter()
            calls[name]()
            # The first ones compile and fill caches.
            if number > 2:
                found[name].append(time.perf_counter() - began)
    return {name: 1000 * float(np.median(each)) for name, each in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--samples", type=int, default=20)
    options = parser.parse_args()
    from kd_jax.training import host_memory, xla_flags

    host_memory.keep()
    xla_flags.prepare(text=False)
    ways = {"XLA": convolution, "columns": columns, "shifts": shifts}
    table = Table(title=f"3 x 3 convolutions, batch {options.batch}, median ms")
    for column in ("size, channels, stride", "part", *ways, "PyTorch", "GFLOP"):
        table.add_column(column, justify="left" if column == "part" else "right")
    for shape in SHAPES:
        size, channels, outputs, stride = shape
        sides = {name: of_jax(way, shape, options.batch) for name, way in ways.items()}
        sides["PyTorch"] = of_torch(shape, options.batch)
        operations = 18 * options.batch * (size // stride) ** 2 * channels * outputs / 1e9
        for number, part in enumerate(PARTS):
            calls = {name: parts[number] for name, parts in sides.items()}
            found = milliseconds(calls, options.samples)
            told = f"{size}, {channels} to {outputs}, {stride}" if number == 0 else ""
            cells = [f"{found[name]:.2f}" for name in sides]
            table.add_row(told, part, *cells, f"{operations:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
