"""Sizes of memory, as people write them."""

import pytest

from kd_jax.core.sizes import read_size


@pytest.mark.parametrize(
    ("text", "size"), [("80GiB", 80 * 2**30), ("16 GB", 16 * 10**9), ("1.5KB", 1500)]
)
def test_sizes_are_read(text, size):
    assert read_size(text) == size


@pytest.mark.parametrize("text", ["80", "-1GB", "0GB", "GB", "1XB", ""])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ValueError, match="--device_memory must be a size such as 80GiB"):
        read_size(text)
