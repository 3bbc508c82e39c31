"""What XLA is told before its first program, where its own choice is slow."""

import os
from importlib import metadata

SCHEDULE = "xla_cpu_scheduler_type"
"""In what order a CPU program's operations run, in jaxlib 0.10."""

ONE_ORDER = "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"
"""The schedule by which all devices start collectives in one order."""

OPTION = "xla_cpu_experimental_ynn_fusion_type"
"""Which operations of a CPU program run in YNNPACK, in jaxlib 0.10."""

FOR_TEXT = "LIBRARY_FUSION_TYPE_REDUCE"
"""Sums outside YNNPACK take 10 times as long; a convolution's gradient in it 3 times as long as in
Eigen, XLA's other library, its forward pass 1.2 to 2 times, a matmul slightly longer."""

FOR_IMAGES = f"{FOR_TEXT},LIBRARY_FUSION_TYPE_ELTWISE"
"""With what is computed value by value in YNNPACK too, ResNets gain a fifth, and transformers lose
a fifth."""


def prepare(*, text: bool) -> None:
    """Chooses the CPU's libraries by XLA_FLAGS, unless the user has; to be called before a device
    is first used.

    Other versions of jaxlib, whose options may differ and which abort on one that they don't know,
    are left alone.

    Args:
      text: whether the process's networks read text, not images.
    """
    # XLA reads the variable once, so what the user has set stays and ours is added behind it.
    given = os.environ.get("XLA_FLAGS", "")
    if is_known() and OPTION not in given:
        os.environ["XLA_FLAGS"] = f"{given} --{OPTION}={FOR_TEXT if text else FOR_IMAGES}".strip()


def prepare_simulated() -> None:
    """Keeps simulated devices from waiting for one another without end, unless the user has chosen;
    to be called before a device is first used."""
    # XLA's CPU devices may reach two collectives that don't depend on each other in different
    # orders, and each waits in another one; with this schedule all take one order.
    given = os.environ.get("XLA_FLAGS", "")
    if is_known() and SCHEDULE not in given:
        os.environ["XLA_FLAGS"] = f"{given} --{SCHEDULE}={ONE_ORDER}".strip()


def options(*, text: bool) -> dict[str, str]:
    """Returns the same for `jax.jit(..., compiler_options=...)`, one program at a time."""
    return {OPTION: FOR_TEXT if text else FOR_IMAGES} if is_known() else {}


def is_known() -> bool:
    """Tells whether this jaxlib has the option."""
    return metadata.version("jaxlib").startswith("0.10.")
