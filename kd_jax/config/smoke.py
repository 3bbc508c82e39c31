"""Shrinks any experiment to seconds: built-in data, tiny models, a few steps.

Nothing of it is meant to be good; it shows that a config runs.
"""

from typing import Any

from ml_collections import ConfigDict

from kd_jax.config.defaults import HARD

TEXT = dict(
    inputs="text",
    label="label",
    train="train[:3%]",
    selection="validation[:5%]",
    evaluation="test[:5%]",
)
IMAGES = dict(
    inputs="image", label="label", train="train[:20%]", selection="train[80%:]", evaluation="test"
)
TEXT_NAMES = ("docstrings", "hostile_docstrings")

ENCODER = dict(
    name="encoder",
    width=16,
    layers=1,
    heads=2,
    intermediate=32,
    max_positions=64,
    type_vocabulary=2,
    dropout=0.1,
    pooling="mean",
)
RESNET = dict(name="cifar_resnet", depth=14, stem=4, widths=(4, 8, 8), shortcut="pad")

SMALL: dict[str, dict[str, Any]] = {
    "bilstm": dict(width=8, state=8),
    "cifar_resnet": dict(stem=4, widths=(4, 8, 8)),
    "encoder": dict(width=8, layers=1, heads=2, intermediate=32, max_positions=64),
    "text_cnn": dict(width=16, filters=8),
    "text_vgg": dict(embedding=16, width=0.0625),
    "vgg": dict(width=0.0625),
}
"""Options of models that are replaced, where the model has them."""


def shrink(config: Any) -> ConfigDict:
    """Shrinks a config in place, before its models inherit, and returns it."""
    text = "tokenizer" in config.view
    # A smaller model may lack options that the real one has, or have other types.
    with config.unlocked(), config.ignore_type():
        _shrink_data(config, text)
        if text:
            config.view = ConfigDict(dict(tokenizer="trained", vocabulary_size=500, max_length=32))
        # The experiment's section goes first, since models inherit from it afterwards.
        _shrink_training(config.training, config)
        for model in config.models.values():
            _shrink_model(model, config, text)
        # One round of new inputs shows that the source works; more only take longer.
        for section in (config.get("transfer_sets") or {}).values():
            if "rounds" in section.get("source", {}):
                section.source.rounds = 1
        # Every fold is a whole training; two are the fewest, and 0 stays 0.
        for section in (config.get("trusted_sets") or {}).values():
            section.folds = min(section.folds, 2)
    return config


def _shrink_data(config: Any, text: bool) -> None:
    name = config.data.name
    config.data.name = name if name in TEXT_NAMES else "docstrings" if text else "digits"
    for key, value in (TEXT if text else IMAGES).items():
        # A few rows would leave nothing that a scoring model can tell apart.
        if not (key == "train" and config.get("trusted_sets")):
            config.data[key] = value
    # What is said of a table's columns and classes is not of the built-in data.
    for key in ("header", "class_names", "unlabelled", "id"):
        if config.data.get(key) is not None:
            config.data[key] = None
    # Of the few rows, few labels would leave out classes.
    config.data.labelled = max(config.data.labelled, 0.5)
    if config.data.augmentation.crop:
        config.data.augmentation.crop = 1
    # Other datasets may be absent or need the network; other splits and corruptions stay.
    kept = {key: each for key, each in config.evaluations.items() if not (each or {}).get("name")}
    config.evaluations = ConfigDict({})
    for key, each in kept.items():
        if each and "evaluation" in each:
            each.evaluation = "test[5%:10%]"
        if each and "corruption" in each:
            each.corruption.severity = 5
        config.evaluations[key] = each


def _shrink_training(training: Any, config: Any) -> None:
    if "epochs" in training:
        # A model that has hardly begun to learn would doubt nearly every row.
        training.epochs = 2.0 if config.get("trusted_sets") else 0.5
    if "batch_size" in training:
        training.batch_size = min(training.batch_size, 32)
    if "warmup_steps" in training.get("schedule", {}):
        training.schedule.warmup_steps = 1
    # Without its long warm-up, a large rate makes some losses overflow within a few steps. A
    # scoring model trains for longer, and must learn something.
    if "learning_rate" in training.get("optimizer", {}) and not config.get("trusted_sets"):
        training.optimizer.learning_rate = min(training.optimizer.learning_rate, 1e-3)


def _shrink_model(section: Any, config: Any, text: bool) -> None:
    if section.get("training"):
        _shrink_training(section.training, config)
    # A second tokenizer stays a second one, so that what depends on it is tried.
    if section.get("view") and section.view.get("vocabulary"):
        section.view = ConfigDict(dict(config.view) | dict(vocabulary=section.view.vocabulary))
    elif section.get("view") and "tokenizer" in section.view:
        section.view = ConfigDict(dict(tokenizer="trained", vocabulary_size=300, max_length=24))
    model = section.get("model")
    if not model:
        return
    # Weights may be absent or need the network; a new tiny model of the kind takes their place.
    if "pretrained" in model or "outputs" in model:
        tiny = (ENCODER if text else RESNET) | {
            key: model[key] for key in ("pooling",) if text and key in model
        }
        section.model = ConfigDict(tiny)
        # Of a task without labels, which a flag may still ask for, nothing trains them.
        section.allow_weak = True
        # What is random now has to be trained, where the other was used as it is.
        if not section.get("objective"):
            section.objective = ConfigDict(HARD)
            # Mixing may ask for a teacher to choose among mixes, and this model has none.
            if "mixing" in config.training:
                section.training = ConfigDict(dict(mixing=None))
    elif model.get("name") in SMALL:
        # Only options that the section gives are replaced: the others' defaults may depend on them.
        for key, value in SMALL[model.name].items():
            if key in model:
                model[key] = value
        if model.get("head"):
            model.head = (16,)
        # The teacher's own are no wider than these.
        if (model.get("embeddings") or {}).get("rank"):
            model.embeddings.rank = 8
    # A memory bank of full size would take longer than all the rest.
    for term in (section.get("objective") or {}).values():
        if term.term == "contrastive_representation":
            term.negatives, term.width = 32, 16
