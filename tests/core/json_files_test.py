import json

import numpy as np
import pytest

from kd_jax.core.json_files import write_json, write_rows


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), np.float64("nan")])
def test_json_holds_null_where_a_number_is_not_finite(tmp_path, bad):
    path = tmp_path / "results.json"
    write_json(path, {"a": {"b": [1.5, (bad, 2)]}, "c": bad})

    def refuse(constant):
        raise AssertionError(constant)

    found = json.loads(path.read_text(), parse_constant=refuse)
    assert found == {"a": {"b": [1.5, [None, 2]]}, "c": None}
    write_rows(tmp_path / "rows.jsonl", [{"value": bad}])
    assert (tmp_path / "rows.jsonl").read_text() == '{"value": null}\n'
