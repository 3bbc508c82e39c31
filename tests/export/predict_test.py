"""Predictions from an export alone: what the student would say, for inputs of any number, bad ones
in their place."""

import io
import json
import shutil

import numpy as np
import pytest
from export.finished_run import BAG, CNN, ENCODER, make_run
from PIL import Image
from scipy import special
from tokenizers import Tokenizer

from kd_jax.export import export, predict
from kd_jax.export.student import open_student

pytestmark = pytest.mark.slow


def run(workdir, path, **options):
    output = io.StringIO()
    counts = predict.predict(workdir, path, output, **options)
    return [json.loads(line) for line in output.getvalue().splitlines()], counts


@pytest.fixture
def exported(tmp_path):
    """An export whose run is gone."""

    def make(spec, **options):
        workdir = make_run(tmp_path / "run", spec, **options)
        student = open_student(workdir)
        tokenizer = (
            None if student.tokenizer is None else Tokenizer.from_file(str(student.tokenizer))
        )
        export(workdir, formats=["kd_jax"])
        shutil.rmtree(workdir / "student")
        return workdir, student, tokenizer

    return make


def live(student, tokenizer, text):
    ids = tokenizer.encode(*((text,) if isinstance(text, str) else text))
    given = {"input_ids": np.array([ids.ids]), "attention_mask": np.ones((1, len(ids.ids)), bool)}
    if not isinstance(text, str):
        given["token_type_ids"] = np.array([ids.type_ids])
    return special.softmax(np.asarray(student.module.apply(student.variables, **given).logits)[0])


@pytest.mark.parametrize("spec", [BAG, ENCODER], ids=["bag", "bert"])
def test_probabilities_are_the_students_for_more_rows_than_a_batch(spec, exported, tmp_path):
    workdir, student, tokenizer = exported(spec)
    rng = np.random.default_rng(0)
    words = ["a", "fine", "dull", "film", "story", "unheard"]
    texts = [" ".join(rng.choice(words, rng.integers(1, 12))) for _ in range(150)]
    (tmp_path / "in.txt").write_text("\n".join(texts))
    answers, counts = run(workdir, tmp_path / "in.txt")
    assert counts == {"predicted": 150, "unreadable": 0}
    assert [answer["row"] for answer in answers] == list(range(1, 151))
    for text, answer in zip(texts, answers, strict=True):
        want = live(student, tokenizer, text)
        assert list(answer["probabilities"]) == ["bad", "fair", "good"]
        np.testing.assert_allclose(list(answer["probabilities"].values()), want, atol=2e-6)
        assert answer["label"] == ["bad", "fair", "good"][int(np.argmax(want))]


def test_bad_rows_are_answered_in_their_place(exported, tmp_path):
    workdir, *_ = exported(BAG)
    lines = [b"fine"] * 70 + [b"", b"\xff"] + [b"dull"] * 3
    (tmp_path / "in.txt").write_bytes(b"\n".join(lines))
    answers, counts = run(workdir, tmp_path / "in.txt")
    assert counts == {"predicted": 73, "unreadable": 2}
    assert answers[70] == {"row": 71, "record": 71, "error": "empty text"}
    assert answers[71] == {"row": 72, "record": 72, "error": "not valid UTF-8"}
    assert answers[72]["row"] == 73
    assert answers[72]["probabilities"] != answers[69]["probabilities"]


def test_a_whole_batch_of_bad_rows_is_answered(exported, tmp_path):
    workdir, *_ = exported(BAG)
    (tmp_path / "in.txt").write_bytes(b"\n" * 130)
    answers, counts = run(workdir, tmp_path / "in.txt")
    assert counts == {"predicted": 0, "unreadable": 130}
    assert len(answers) == 130


def test_pairs_come_from_the_columns_that_the_student_was_trained_on(exported, tmp_path):
    workdir, student, tokenizer = exported(ENCODER, pairs=True)
    (tmp_path / "in.jsonl").write_text('{"text": "a fine film", "other": "a story"}\n')
    (answer,), _ = run(workdir, tmp_path / "in.jsonl")
    want = live(student, tokenizer, ("a fine film", "a story"))
    np.testing.assert_allclose(list(answer["probabilities"].values()), want, atol=2e-6)


def test_long_texts_are_cut_as_in_training(exported, tmp_path):
    workdir, *_ = exported(BAG)
    (tmp_path / "in.txt").write_text("fine " * 14 + "\n" + "fine " * 400)
    (short, long), _ = run(workdir, tmp_path / "in.txt")
    assert short["probabilities"] == long["probabilities"]


@pytest.mark.parametrize("size", [None, [8, 8]])
def test_images_are_resized_and_normalised_as_in_training(size, exported, tmp_path):
    view = {"size": size, "mean": [0.5], "std": [0.25], "channels": 3}
    workdir, student, _ = exported(CNN, view=view)
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    (tmp_path / "in").mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / "in" / f"{i}.png")
    Image.fromarray(images[0]).resize((16, 16)).save(tmp_path / "in" / "large.png")
    (tmp_path / "in" / "broken.png").write_bytes(b"nothing")
    answers, counts = run(workdir, tmp_path / "in")
    assert counts == {"predicted": 4, "unreadable": 1}
    assert [answer["file"] for answer in answers] == [
        "0.png",
        "1.png",
        "2.png",
        "broken.png",
        "large.png",
    ]
    want = student.module.apply(
        student.variables, (images.astype(np.float32) / 255 - 0.5) / 0.25
    ).logits
    found = [list(answer["probabilities"].values()) for answer in answers[:3]]
    np.testing.assert_allclose(found, special.softmax(np.asarray(want), axis=-1), atol=2e-6)


def test_the_exports_folder_itself_will_do(exported, tmp_path):
    workdir, *_ = exported(BAG)
    (tmp_path / "in.txt").write_text("fine")
    assert run(workdir, tmp_path / "in.txt") == run(
        workdir / "export" / "student", tmp_path / "in.txt"
    )


def test_what_is_missing_is_said(exported, tmp_path):
    (tmp_path / "in.txt").write_text("fine")
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        ValueError, match=r"has no export; make one with: launch.py --stage=export --workdir="
    ):
        run(tmp_path / "empty", tmp_path / "in.txt")
    workdir, *_ = exported(BAG)
    shutil.copytree(workdir / "export" / "student", workdir / "export" / "second")
    with pytest.raises(ValueError, match="has exports of second, student; say which with --model"):
        run(workdir, tmp_path / "in.txt")
    assert run(workdir, tmp_path / "in.txt", name="second")[1]["predicted"] == 1


def test_a_file_of_predictions_is_replaced_only_when_all_are_there(exported, tmp_path):
    workdir, _, _ = exported(BAG)
    output = tmp_path / "out.jsonl"
    output.write_text("older predictions")
    with pytest.raises(ValueError, match=r"nowhere\.txt"):
        predict.predict_to_file(workdir, tmp_path / "nowhere.txt", output)
    assert output.read_text() == "older predictions"
    (tmp_path / "in.txt").write_text("a fine film\na dull story\n")
    counts = predict.predict_to_file(workdir, tmp_path / "in.txt", output)
    assert counts["predicted"] == len(output.read_text().splitlines()) == 2
    assert not list(tmp_path.glob("*.tmp"))


def test_an_output_that_is_the_input_or_no_file_is_refused(exported, tmp_path):
    workdir, _, _ = exported(BAG)
    path = tmp_path / "in.txt"
    path.write_text("a fine film\n")
    (tmp_path / "link.txt").symlink_to(path)
    for output in (path, tmp_path / "link.txt", tmp_path / "run" / ".." / "in.txt"):
        with pytest.raises(ValueError, match="the input itself"):
            predict.predict_to_file(workdir, path, output)
    assert path.read_text() == "a fine film\n"
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    (pictures / "a.png").write_bytes(b"a picture")
    for output in (pictures / "a.png", pictures / "new.jsonl"):
        with pytest.raises(ValueError, match="lies in the input folder"):
            predict.predict_to_file(workdir, pictures, output)
    assert (pictures / "a.png").read_bytes() == b"a picture"
    for output in (tmp_path, tmp_path / "no" / "out.jsonl"):
        with pytest.raises(ValueError, match="--output"):
            predict.predict_to_file(workdir, path, output)


def test_answers_carry_the_columns_that_are_kept_and_read_those_that_are_named(exported, tmp_path):
    workdir, *_ = exported(BAG)
    path = tmp_path / "in.csv"
    path.write_text("id,body,label\n7,a fine film,good\n8,,bad\n9,dull,bad\n")
    names = {"columns": {"text": "body"}, "keep": {"id": "id", "wanted": "label"}}
    answers, counts = run(workdir, path, **names)
    assert counts == {"predicted": 2, "unreadable": 1}
    facts = [(answer["record"], answer["id"], answer["wanted"]) for answer in answers]
    assert facts == [(1, "7", "good"), (2, "8", "bad"), (3, "9", "bad")]
    assert [list(answer)[-1] for answer in answers] == ["probabilities", "error", "probabilities"]
    with pytest.raises(ValueError, match="--columns: the model reads no column 'txt'; it reads te"):
        run(workdir, path, columns={"txt": "body"})
    with pytest.raises(ValueError, match="--keep: an answer has a 'label' of its own"):
        run(workdir, path, keep={"label": "label"})


def test_a_pair_reads_each_column_by_its_name(exported, tmp_path):
    workdir, student, tokenizer = exported(ENCODER, pairs=True)
    (tmp_path / "in.tsv").write_text("b\ta\na story\ta fine film\n")
    (answer,), _ = run(workdir, tmp_path / "in.tsv", columns={"text": "a", "other": "b"})
    want = live(student, tokenizer, ("a fine film", "a story"))
    np.testing.assert_allclose(list(answer["probabilities"].values()), want, atol=2e-6)


def test_probabilities_that_are_not_finite_are_an_error_of_their_row(
    exported, tmp_path, monkeypatch
):
    workdir, *_ = exported(BAG)
    (tmp_path / "in.txt").write_text("fine\n")
    monkeypatch.setattr(
        predict.Predictor, "probabilities", lambda *_: np.full((1, 3), np.nan, np.float32)
    )
    (answer,), counts = run(workdir, tmp_path / "in.txt")
    assert answer["error"] == "the model's probabilities are not finite"
    assert counts == {"predicted": 0, "unreadable": 1}


def test_texts_of_like_lengths_go_together_and_answers_keep_their_order(
    exported, tmp_path, monkeypatch
):
    workdir, student, tokenizer = exported(ENCODER)
    predictor = predict.Predictor(predict.find_export(workdir))
    seen = []
    compute = predictor.probabilities
    monkeypatch.setattr(
        predictor, "probabilities", lambda values: seen.append(values) or compute(values)
    )
    texts = ["fine" if i % 2 else "a dull and long film " * 2 for i in range(130)]
    (tmp_path / "in.txt").write_text("\n".join(texts))
    rows = predict.unlabelled.read(tmp_path / "in.txt", "text", ("text",), None)
    answers = list(predictor.answers(rows))
    assert [answer["row"] for answer in answers] == list(range(1, 131))
    assert [len(values) for values in seen] == [64, 64, 2]
    assert set(seen[0]) == {"fine"}
    for text, answer in zip(texts[:4], answers, strict=False):
        want = live(student, tokenizer, text.strip())
        np.testing.assert_allclose(list(answer["probabilities"].values()), want, atol=2e-6)


def test_of_long_texts_only_a_batch_is_read_ahead(exported, monkeypatch):
    workdir, *_ = exported(BAG)
    predictor = predict.Predictor(predict.find_export(workdir))
    monkeypatch.setattr(predict, "LARGEST_PART", 640)
    read = []

    def rows():
        for number in range(1000):
            read.append(number)
            yield predict.Row({"row": number}, "long texts")

    next(predictor.answers(rows()))
    assert len(read) == 64
