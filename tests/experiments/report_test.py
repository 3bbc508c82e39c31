from kd_jax.experiments import report

SCORES = {"accuracy": 0.8125, "loss": 0.5, "ece": 0.1}
ENTRY = SCORES | {"teachers": [], "parameters": 10, "train_seconds": 1.0}
FOUND = {
    "experiment": "digits",
    "seed": 0,
    "order": ["teacher", "student"],
    "models": {"teacher": ENTRY, "student": ENTRY | {"accuracy": 0.625}},
    "evaluations": {
        "scans": {
            name: SCORES | {"accuracy": value, "rows": 1200, "left_out": 34}
            for name, value in (("teacher", 0.5), ("student", 0.375))
        },
        "blurred": {
            name: SCORES | {"accuracy": 0.25, "rows": 7, "left_out": 0}
            for name in ("teacher", "student")
        },
    },
    "robustness": {
        name: {
            "in_domain": accuracy,
            "mean": 0.3,
            "worst": 0.25,
            "worst_dataset": "blurred",
            "drop": 0.2,
        }
        for name, accuracy in (("teacher", 0.8125), ("student", 0.625))
    },
    "gain": 0.0,
    "gap_closed": None,
    "compression": 1.0,
    "speedup": {"batch_1": 1.0},
}


def cells(text):
    return [
        [cell.strip() for cell in line.strip("│").split("│")]
        for line in text.splitlines()
        if line[0] == "│"
    ]


def test_the_table_of_datasets_begins_in_domain_and_ends_with_the_worst(tmp_path, capsys):
    report.show(FOUND, tmp_path)
    rows = cells(capsys.readouterr().out.partition("by dataset")[2].partition("┏")[2])
    assert rows == [
        ["in domain", "", "", "81.25", "62.50"],
        ["scans", "1,200", "34", "50.00", "37.50"],
        ["blurred", "7", "0", "25.00", "25.00"],
        ["mean of these", "", "", "30.00", "30.00"],
        ["drop from in domain", "", "", "20.00", "20.00"],
        ["worst", "", "", "25.00", "25.00"],
        ["", "", "", "blurred", "blurred"],
    ]


def test_a_run_without_further_datasets_shows_no_such_table(tmp_path, capsys):
    report.show(FOUND | {"evaluations": {}, "robustness": {}}, tmp_path)
    assert "by dataset" not in capsys.readouterr().out
