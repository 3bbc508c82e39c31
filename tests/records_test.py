import json
from contextlib import closing

import pytest
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.record_writer import masked_crc32c  # noqa: F401 - the format of the events' files

from kd_jax.records import Records, write_json


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def steps(workdir, model="student"):
    return [entry["step"] for entry in lines(workdir) if entry["model"] == model]


def train(workdir, first, last, model="student"):
    """Writes steps first + 1 .. last, as a run resumed at `first` does."""
    with closing(Records(workdir, model, resumed_at=first)) as records:
        for step in range(first + 1, last + 1):
            records.write(step, {"loss": 1 / step, "from": first})
