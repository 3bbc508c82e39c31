"""The stage `explain`, from a finished run's folder to explain.json and pictures: members and parts
of examples."""

import hashlib
import json
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from finished_runs import copy, images, texts
from paths import ROOT
from PIL import Image

from kd_jax import cli
from kd_jax.data.open import open_source
from kd_jax.explain import attributions, explain_members
from kd_jax.explain.patches_and_tokens import one_example, views_of
from kd_jax.explain.run import ONE_DEVICE, open_run
from kd_jax.export.student import open_student

pytestmark = pytest.mark.slow

LAUNCH = ROOT / "launch.py"


def explained(run):
    return json.loads((run / "explain" / "explain.json").read_text())


def contents(run):
    """Path -> digest of every file of a run, what explains it left out."""
    files = (path for path in run.rglob("*") if path.is_file() and "explain" not in path.parts)
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.name != ".lock"
    }


@pytest.fixture(scope="module")
def of_images(tmp_path_factory):
    run = copy(images(), tmp_path_factory.mktemp("images") / "run")
    before = contents(run)
    explain_members(run, None, 3, 8)
    assert contents(run) == before
    return run


@pytest.fixture(scope="module")
def of_texts(tmp_path_factory):
    run = copy(texts(), tmp_path_factory.mktemp("texts") / "run")
    explain_members(run, None, 2, 8)
    return run


# Images


def test_the_members_of_each_ensemble_are_those_of_the_results(of_images):
    results = json.loads((of_images / "results.json").read_text())
    assert explained(of_images)["members"] == {"ensemble": results["models"]["ensemble"]["shapley"]}


def test_there_is_a_picture_for_each_ensemble_and_example(of_images):
    names = {
        "members_ensemble.png",
        "attribution_000.png",
        "attribution_001.png",
        "attribution_002.png",
    }
    assert {path.name for path in (of_images / "explain").glob("*.png")} == names
    for name in names:
        with Image.open(of_images / "explain" / name) as picture:
            assert picture.format == "PNG"


def test_the_students_attributions_add_up_from_a_blank_picture_to_the_example(of_images):
    """By the exported student alone, which knows nothing of this stage."""
    found, student = explained(of_images)["attributions"], open_student(of_images)
    source = open_source("digits", "test", dir=None, inputs="image", label="label", max_rejected=0)
    assert (found["players"], found["grid"], found["permutations"]) == ("patches", [8, 8], 8)
    for each in found["examples"]:
        image = (source.inputs[each["example"]][None].astype(np.float32) / 255 - 0.3) / 0.37
        shown, blank = (
            np.asarray(student.logits(jnp.asarray(x)))[0] for x in (image, np.zeros_like(image))
        )
        attributed = student.class_names.index(each["class"])
        values = each["attributions"]["student"]["values"]
        assert len(values) == 64
        assert sum(values) == pytest.approx(
            shown[attributed] - blank[attributed], rel=1e-3, abs=1e-4
        )
        assert each["predictions"]["student"] == student.class_names[int(np.argmax(shown))]
        assert each["label"] == source.class_names[source.labels[each["example"]]]


def test_an_ensemble_of_three_image_sizes_is_attributed_as_one_model(of_images):
    run = open_run(of_images, ONE_DEVICE)
    ensemble = run.models(["ensemble"])["ensemble"]
    for each in explained(of_images)["attributions"]["examples"]:
        batch = one_example(run.context.datasets, views_of(ensemble), each["example"])
        assert len({view["images"].shape for view in batch.views.values()}) == 2
        blank = batch.replace(
            views={n: {"images": 0 * v["images"]} for n, v in batch.views.items()}
        )
        shown, hidden = (
            np.asarray(ensemble.network(ensemble.variables, x).logits)[0] for x in (batch, blank)
        )
        attributed = int(np.argmax(shown))
        assert each["class"] == each["predictions"]["ensemble"] == run.class_names[attributed]
        total = sum(each["attributions"]["ensemble"]["values"])
        assert total == pytest.approx(shown[attributed] - hidden[attributed], rel=1e-3, abs=1e-4)


def test_standard_errors_stand_beside_the_values(of_images):
    for each in explained(of_images)["attributions"]["examples"]:
        for entry in each["attributions"].values():
            errors = np.array(entry["standard_errors"])
            assert errors.shape == np.shape(entry["values"])
            assert (errors >= 0).all()
            assert errors.max() > 0


def test_how_alike_they_look_is_the_cosine_of_both_and_its_mean(of_images):
    found, cosines = explained(of_images)["attributions"], []
    for each in found["examples"]:
        ours, theirs = (
            np.array(each["attributions"][name]["values"]) for name in ("ensemble", "student")
        )
        cosines.append(ours @ theirs / np.linalg.norm(ours) / np.linalg.norm(theirs))
        assert each["cosine"]["ensemble"]["student"] == pytest.approx(cosines[-1])
    assert found["cosine"] == {"ensemble": {"student": pytest.approx(np.mean(cosines))}}
    assert found["cosine_note"] is None


def test_both_models_see_the_same_permutations_and_each_example_others(
    of_images, tmp_path, monkeypatch
):
    run, drawn, real = copy(of_images, tmp_path / "run"), [], attributions.draw_permutations
    monkeypatch.setattr(
        attributions,
        "draw_permutations",
        lambda *arguments: drawn.append(real(*arguments)) or drawn[-1],
    )
    explain_members(run, "vgg", 2, 4)
    assert [each.shape for each in drawn] == [(2, 64)] * 4
    np.testing.assert_array_equal(drawn[0], drawn[1])
    np.testing.assert_array_equal(drawn[2], drawn[3])
    assert not np.array_equal(drawn[0], drawn[2])
    assert explained(run)["attributions"]["model"] == "vgg"


# Texts


def test_an_ensemble_of_two_tokenizers_is_asked_member_by_member(of_texts):
    found = explained(of_texts)["attributions"]
    assert (found["players"], found["grid"]) == ("tokens", None)
    for each in found["examples"]:
        assert set(each["attributions"]) == {"minilm", "cnn", "student"}
        assert each["class"] == each["predictions"]["teacher"]
        assert each["cosine"]["cnn"] == {"student": None}
        assert each["attributions"]["minilm"]["tokens"] == each["attributions"]["student"]["tokens"]
    means = [each["cosine"]["minilm"]["student"] for each in found["examples"]]
    assert found["cosine"] == {
        "minilm": {"student": pytest.approx(np.mean(means))},
        "cnn": {"student": None},
    }
    assert "other tokens" in found["cosine_note"]


def test_tokens_add_up_and_those_that_begin_and_end_a_text_are_worth_nothing(of_texts):
    student, run = open_student(of_texts), open_run(of_texts, ONE_DEVICE)
    tokenizer = run.context.datasets.tokenizer(run.plan["student"].view)
    for each in explained(of_texts)["attributions"]["examples"]:
        entry = each["attributions"]["student"]
        tokens, values = entry["tokens"], np.array(entry["values"])
        assert (tokens[0], tokens[-1]) == ("[CLS]", "[SEP]")
        assert (values[0], values[-1]) == (0, 0)
        assert len(values) == len(tokens) == len(entry["standard_errors"])
        ids = np.array([[tokenizer.token_to_id(token) for token in tokens]], np.int32)
        ends = np.zeros(ids.shape, bool)
        ends[:, [0, -1]] = True
        shown, hidden = (student.logits(ids, mask)[0] for mask in (np.ones(ids.shape, bool), ends))
        attributed = student.class_names.index(each["class"])
        assert values.sum() == pytest.approx(
            float(shown[attributed] - hidden[attributed]), rel=1e-3, abs=1e-5
        )
    assert len(list((of_texts / "explain").glob("attribution_*.png"))) == 2


# Refusals


@pytest.mark.parametrize(
    ("model", "examples", "permutations", "message"),
    [
        (None, 0, None, "--examples must be from 1 to 359, the evaluation split's, got 0"),
        (None, 360, None, "--examples must be from 1 to 359, the evaluation split's, got 360"),
        (None, 1, 3, "--permutations come in pairs, of which an error needs two: got 3"),
        (
            "pupil",
            1,
            4,
            r"has no model 'pupil'; it has baseline, resnet, vgg, vit, ensemble, student",
        ),
        (
            "ensemble",
            1,
            4,
            "'ensemble' is the compared teacher itself; --model names whom to set beside it",
        ),
    ],
)
def test_what_does_not_exist_is_refused(model, examples, permutations, message):
    with pytest.raises(ValueError, match=message):
        explain_members(images(), model, examples, permutations)


def test_a_folder_that_is_no_finished_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"nothing is no run's folder: it has no config\.json"):
        explain_members(tmp_path / "nothing", None, None, None)
    run = copy(images(), tmp_path / "run")
    (run / "results.json").unlink()
    with pytest.raises(
        ValueError, match=r"the run in .* is not finished; start it again and it goes on"
    ):
        explain_members(run, None, None, None)


def test_a_damaged_model_is_refused_and_not_made_again(tmp_path):
    run = copy(images(), tmp_path / "run")
    (run / "student" / "model.safetensors").write_bytes(b"")
    with pytest.raises(
        ValueError, match=r"'student' in .* is damaged; start the run again and it is remade"
    ):
        explain_members(run, None, 1, 4)


def test_changed_data_is_refused(tmp_path):
    run = copy(images(), tmp_path / "run")
    (run / "data.json").write_text('"sha256:other"')
    with pytest.raises(ValueError, match="the data changed since the run in"):
        explain_members(run, None, 1, 4)


def test_examples_are_not_dropped_silently_where_terms_are_the_players():
    with pytest.raises(
        ValueError,
        match="--examples are explained by their parts, with --by=members, not terms",
    ):
        cli.explain_stage(images(), None, "terms", 3, None, None)


def test_the_command_line_explains_and_refuses_in_one_line(tmp_path):
    run = copy(images(), tmp_path / "run")

    def launch(*arguments):
        command = [sys.executable, str(LAUNCH), "--stage=explain", f"--workdir={run}", *arguments]
        return subprocess.run(
            command, cwd=LAUNCH.parent, capture_output=True, text=True, timeout=200, check=False
        )

    done = launch("--examples=1", "--permutations=4")
    assert done.returncode == 0, done.stderr
    assert "where teacher and student look alike" in done.stdout
    assert f"explained: {run.resolve() / 'explain'}" in done.stdout
    assert "attributions 1/1" in done.stderr
    assert (run / "explain" / "attribution_000.png").is_file()
    refused = launch("--examples=0")
    assert refused.returncode == 1
    assert (
        refused.stderr.strip()
        .splitlines()[-1]
        .startswith("error: --examples must be from 1 to 359")
    )
    assert "Traceback" not in refused.stderr
