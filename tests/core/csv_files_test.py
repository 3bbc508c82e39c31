"""Tables for tools that read CSV."""

import csv

from kd_jax.core.csv_files import write_csv


def test_a_row_need_not_have_every_column(tmp_path):
    path = tmp_path / "a.csv"
    write_csv(path, [{"seed": 0, "note": 'so, "said"'}, {"seed": 1, "accuracy": None}])
    with path.open(newline="") as file:
        assert list(csv.DictReader(file)) == [
            {"seed": "0", "note": 'so, "said"', "accuracy": ""},
            {"seed": "1", "note": "", "accuracy": ""},
        ]
    write_csv(path, [])
    assert path.read_text().strip() == ""
    assert list(tmp_path.iterdir()) == [path]
