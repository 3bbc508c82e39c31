r"""A BERT-base teacher of the user's own, Adam at 1e-4, cross-entropy plus KL; test accuracy in
percent.

  uv run launch.py --config=configs/bert_adam.py --workdir=runs/bert
  --config.models.teacher.model.pretrained=FOLDER \
      --config.view.tokenizer=FOLDER
  uv run launch.py --config=configs/bert_adam.py:smoke

FOLDER is a Hugging Face folder of BERT-base: config.json, model.safetensors, tokenizer.json. The
accuracy that is printed is the one on `data.evaluation`; SST-2's public test labels are hidden, so
its validation split stands in. """

from kd_jax.config import HARD, experiment, soft_targets


def get_config():
    return experiment(
        "bert_adam",
        data=dict(
            name="glue/sst2",
            train="train[:95%]",
            selection="train[95%:]",
            evaluation="validation",
            inputs="sentence",
        ),
        view=dict(tokenizer="path/to/bert-base", max_length=64),
        training=dict(
            batch_size=32,
            epochs=3.0,
            optimizer=dict(name="adam", learning_rate=1e-4),
            schedule=dict(name="constant", warmup_steps=0),
        ),
        teacher=dict(model=dict(pretrained="path/to/bert-base"), objective=HARD),
        student=dict(
            model=dict(
                name="encoder",
                width=128,
                layers=2,
                heads=2,
                intermediate=512,
                max_positions=512,
                type_vocabulary=2,
                dropout=0.1,
                pooling="cls",
            ),
            objective=soft_targets(temperature=2.0, hard=0.5),
        ),
        checkpoint=dict(every_steps=500),
    )
