"""Where the project and its tests lie, for tests that read files of them."""

from pathlib import Path

TESTS = Path(__file__).parent
ROOT = TESTS.parent
