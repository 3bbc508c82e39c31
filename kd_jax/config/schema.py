"""Which keys a config has, what each may be, and what a checked one is made of.

Defaults are in `kd_jax.config.defaults`; a field without a default must be given, or filled in from
there. Options of models and terms are checked where those are built."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from kd_jax.config.names import TRAIN, WHOLE_TEXTS
from kd_jax.config.rules import (
    BELOW_ONE,
    BOOL,
    INSIDE,
    MAPPING,
    NAMES,
    NOT_NEGATIVE,
    PART,
    PATH,
    POSITIVE,
    SHARE,
    SOME_NAMES,
    TEXT,
    WEIGHT,
    Each,
    Maybe,
    Named,
    Options,
    Section,
    Value,
    is_finite,
    numbers,
    one_of,
    whole,
)
from kd_jax.core.options import is_whole

FROM_MODEL = "from_model"
EMBEDDINGS = "embeddings"
"""Key of a model's `model` that names an earlier model, whose weights it starts from in place of
random ones."""

OUTPUTS = "outputs"
"""Key of a model's `model` that names a file of its outputs on the data, where no more is known."""

DTYPES = ("float32", "bfloat16", "float16", "float64")
"""What models may compute in."""

CLEANING = one_of("off", "report", "drop", "repair")


@dataclass(frozen=True)
class Augmentation:
    """`data.augmentation`: how training images vary, before any model sees them."""

    crop: Annotated[int, whole(0)]
    flip: Annotated[float, SHARE]


@dataclass(frozen=True)
class Cleaning:
    """`data.cleaning`: what is done about bad training rows, and from where on a row is bad."""

    mode: Annotated[str, CLEANING]
    prepared: Annotated[str, CLEANING]
    max_characters: Annotated[int | None, whole(1).or_none()]
    max_pixels: Annotated[int | None, whole(1).or_none()]
    near_duplicate: Annotated[float | None, PART.or_none()]


def _are_inputs(value: Any) -> bool:
    # A single column is the usual case and needs no tuple around it.
    parts = [value] if isinstance(value, str) else value
    return isinstance(parts, list | tuple) and len(parts) in (1, 2) and NAMES.fits(parts)


def _is_label(value: Any) -> bool:
    return TEXT.fits(value) or SOME_NAMES.fits(value)


def _is_selection(value: Any) -> bool:
    if isinstance(value, Mapping):
        return [*value] == [WHOLE_TEXTS] and whole(1).fits(value[WHOLE_TEXTS])
    return TEXT.fits(value)


SELECTION = Value("a split or dict(whole_texts=...), a number from 1 on", _is_selection)
LABEL = Value("a column, or several", _is_label)
INPUTS = Value("a column or a pair of columns", _are_inputs)


@dataclass(frozen=True)
class Data:
    """`data`: the dataset, its three splits and what is done to the training rows."""

    name: Annotated[str, TEXT]
    dir: Annotated[str | None, TEXT.or_none()]
    train: Annotated[str, TEXT]
    selection: Annotated[Any, SELECTION]
    evaluation: Annotated[str, TEXT]
    inputs: Annotated[Any, INPUTS]
    # None: there are no labels, and the task needs none.
    label: Annotated[Any, LABEL.or_none()]
    max_rejected: Annotated[int, whole(0)]
    augmentation: Augmentation
    cleaning: Cleaning
    # Labels that mean "none"; None: nothing is said, so what usually means it is refused.
    unlabelled: Annotated[Any, NAMES.or_none()] = None
    # Of CSV and TSV files without a first row of names.
    header: Annotated[Any, SOME_NAMES.or_none()] = None
    # Column of the rows' ids, by which outputs that a file holds are found; None: a row's place.
    id: Annotated[str | None, TEXT.or_none()] = None
    # Their names by number, or a file with one a line.
    class_names: Annotated[Any, LABEL.or_none()] = None
    # Of the training rows' labels; the other rows stay, without one.
    labelled: Annotated[float, PART] = 1.0


def _is_size(value: Any) -> bool:
    fits = whole(1).fits
    return fits(value) or (
        isinstance(value, list | tuple) and len(value) == 2 and all(map(fits, value))
    )


@dataclass(frozen=True)
class ImageView:
    """`view` of images: how one is resized, converted and normalized."""

    size: Annotated[Any, Value("a height and a width in pixels", _is_size).or_none()]
    # Images are grey or have three colours; a fourth channel would be transparency.
    channels: Annotated[
        int | None, Value("1 or 3", lambda x: is_whole(x, 1) and x in (1, 3)).or_none()
    ]
    mean: Annotated[Any, numbers("a tuple of finite numbers", is_finite)]
    std: Annotated[Any, numbers("a tuple of positive numbers", lambda x: x > 0)]


@dataclass(frozen=True)
class TextView:
    """`view` of texts: how one becomes tokens."""

    tokenizer: Annotated[str, TEXT]
    max_length: Annotated[int, whole(1)]
    # A tokenizer that comes from a file brings its own vocabulary.
    vocabulary_size: Annotated[int | None, whole(1).or_none()] = None
    long: Annotated[str, one_of("truncate", "head_tail", "windows")] = "truncate"
    # "training": only tokens of the training texts, each with an id of its own.
    vocabulary: Annotated[str, one_of("whole", "training")] = "whole"

    @staticmethod
    def check_together(section: Mapping[str, Any], path: str) -> None:
        """Raises a ValueError for a tokenizer to be trained to no size."""
        # Only a tokenizer that is still to be trained needs a size.
        if section["tokenizer"] == "trained" and section.get("vocabulary_size") is None:
            raise ValueError(
                f"{path}.vocabulary_size must be given: the tokenizer is to be trained"
            )


class _View:
    """The rule of either kind of view."""

    def check(self, value: Any, path: str) -> None:
        """Raises a ValueError if it is neither."""
        # Only texts have tokenizers, so that key tells which of the two is meant.
        text = isinstance(value, Mapping) and "tokenizer" in value
        Section(TextView if text else ImageView).check(value, path)


VIEW = _View()


@dataclass(frozen=True)
class Adam:
    """`training.optimizer` by the name adam."""

    learning_rate: Annotated[float, POSITIVE]
    clip_norm: Annotated[float | None, POSITIVE.or_none()]
    # Published values, which an experiment rarely changes, so they may be left out.
    b1: Annotated[float, BELOW_ONE] = 0.9
    b2: Annotated[float, BELOW_ONE] = 0.999
    eps: Annotated[float, POSITIVE] = 1e-8


@dataclass(frozen=True)
class AdamW(Adam):
    """`training.optimizer` by the name adamw."""

    # Keyword-only, as a field without default can't follow the ones that are inherited.
    weight_decay: Annotated[float, NOT_NEGATIVE] = field(kw_only=True)


@dataclass(frozen=True)
class Sgd:
    """`training.optimizer` by the name sgd."""

    learning_rate: Annotated[float, POSITIVE]
    clip_norm: Annotated[float | None, POSITIVE.or_none()]
    weight_decay: Annotated[float, NOT_NEGATIVE]
    momentum: Annotated[float, BELOW_ONE]
    nesterov: Annotated[bool, BOOL] = False


OPTIMIZERS = {"adam": Adam, "adamw": AdamW, "sgd": Sgd}


@dataclass(frozen=True)
class Constant:
    """`training.schedule` by the name constant."""

    warmup_steps: Annotated[int, whole(0)]


@dataclass(frozen=True)
class Falling(Constant):
    """`training.schedule` by the names cosine and linear."""

    final_fraction: Annotated[float, SHARE] = 0.0


@dataclass(frozen=True)
class Step(Constant):
    """`training.schedule` by the name step."""

    boundaries: Annotated[Any, numbers("fractions of the training, between 0 and 1", INSIDE.fits)]
    factor: Annotated[float, POSITIVE]


SCHEDULES = {"constant": Constant, "cosine": Falling, "linear": Falling, "step": Step}


@dataclass(frozen=True)
class Mixing:
    """`training.mixing`: how the examples of a microbatch are mixed."""

    kind: Annotated[str, one_of("mixup", "cutmix")]
    probability: Annotated[float, PART]
    share: Annotated[float, PART]
    concentration: Annotated[float, POSITIVE]
    candidates: Annotated[int, whole(1)]


@dataclass(frozen=True)
class Training:
    """`training`, of the experiment or of one model."""

    batch_size: Annotated[int, whole(1)]
    epochs: Annotated[float, POSITIVE]
    accumulate: Annotated[int, whole(1)]
    optimizer: Annotated[Any, Named(OPTIMIZERS)]
    schedule: Annotated[Any, Named(SCHEDULES)]
    mixing: Annotated[Any, Maybe(Section(Mixing))] = None
    patience: Annotated[int | None, whole(1).or_none()] = None
    augmented_epochs: Annotated[int | None, whole(1).or_none()] = None

    @staticmethod
    def check_together(section: Mapping[str, Any], path: str) -> None:
        """Raises a ValueError for a batch that doesn't divide into microbatches."""
        # Unequal microbatches would need another compiled step for the last one.
        size, parts = section["batch_size"], section["accumulate"]
        if size % parts:
            raise ValueError(
                f"{path}.batch_size must be a multiple of accumulate, got {size} and {parts}:"
                f" it can't be divided into {parts} microbatches"
            )


class Term:
    """The rule of a term of an objective, beyond its own hyperparameters."""

    def check(self, value: Any, path: str) -> None:
        """Raises a ValueError if it names no term, or weighs it by no number."""
        # A term's own hyperparameters are checked by the term, when it is built.
        Options(("term",)).check(value, path)
        # Whether a weight has to be given is the objective's to say.
        if "weight" in value:
            WEIGHT.check(value["weight"], f"{path}.weight")


@dataclass(frozen=True)
class Ema:
    """`models.*.ema`: the moving average of a model that it learns from."""

    decay: Annotated[float, INSIDE]


@dataclass(frozen=True)
class Condition:
    """`models.*.condition`: which output of a teacher is part of a model's input."""

    on: Annotated[str, TEXT]
    output: Annotated[str, TEXT]
    map: Annotated[str, TEXT]
    drop: Annotated[float, BELOW_ONE]


@dataclass(frozen=True)
class CachedAs:
    """`models.*.cached_as`: how the logits of cached teachers are kept."""

    # The largest, and what the others weigh together; None: all.
    top_k: Annotated[int | None, whole(1).or_none()] = None
    # None: as they are computed.
    dtype: Annotated[str | None, one_of("float16", "bfloat16", "float32").or_none()] = None


@dataclass(frozen=True)
class Model:
    """`models.*`: what a model is, reads and learns from."""

    # One of these keys says where the model comes from; the rest are its own options.
    model: Annotated[Any, Options(("name", "pretrained", FROM_MODEL, OUTPUTS))]
    view: Annotated[Any, VIEW]
    dtype: Annotated[str, one_of(*DTYPES)]
    training: Training
    like: Annotated[str | None, TEXT] = None
    teachers: Annotated[Any, NAMES] = ()
    cached: Annotated[Any, NAMES] = ()
    cached_as: Annotated[Any, Maybe(Section(CachedAs))] = None
    objective: Annotated[Any, Each(Term())] = None
    data: Annotated[Any, SOME_NAMES] = (TRAIN,)
    restore: Annotated[str | None, TEXT.or_none()] = None
    # A teacher that is worse than a guess is a mistake nearly always, and an experiment rarely.
    allow_weak: Annotated[bool, BOOL] = False
    ema: Annotated[Any, Maybe(Section(Ema))] = None
    condition: Annotated[Any, Maybe(Section(Condition))] = None


class Models:
    """The rule of `models`."""

    def check(self, value: Any, path: str) -> None:
        """Raises a ValueError for the first section that isn't allowed.

        Those that are `like` another come last: what they took over is the other's to mend.
        """
        MAPPING.check(value, path)
        # A stable sort: models of the same kind keep the order of the config.
        by_origin = sorted(value, key=lambda name: "like" in value[name])
        Each(Section(Model)).check({name: value[name] for name in by_origin}, path)


@dataclass(frozen=True)
class Compare:
    """`compare`: names of the models that the summary sets side by side."""

    student: Annotated[str, TEXT]
    baseline: Annotated[str, TEXT]
    teacher: Annotated[str, TEXT]


def _is_range(value: Any) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) == 2
        and all(bound is None or is_finite(bound) for bound in value)
    )


RANGE = Value("a pair of lowest and highest number, None for no bound", _is_range)


@dataclass(frozen=True)
class Evaluation:
    """`evaluations.*`: a further dataset; what it doesn't say is taken from `data`."""

    # None everywhere, because what isn't said here is as in `data`.
    name: Annotated[str | None, TEXT.or_none()] = None
    dir: Annotated[str | None, TEXT.or_none()] = None
    evaluation: Annotated[str | None, TEXT.or_none()] = None
    inputs: Annotated[Any, INPUTS.or_none()] = None
    label: Annotated[Any, LABEL.or_none()] = None
    max_rejected: Annotated[int | None, whole(0).or_none()] = None
    label_map: Annotated[Any, MAPPING.or_none()] = None
    label_ranges: Annotated[Any, Maybe(Each(RANGE))] = None
    corruption: Annotated[Any, MAPPING.or_none()] = None


@dataclass(frozen=True)
class Parallel:
    """`parallel`: how steps are spread over devices."""

    backend: Annotated[str, one_of("jit", "pmap")]
    data: Annotated[
        # -1 takes all devices that are left, and no device at all makes no sense.
        int, Value("-1 or a whole number from 1 on", lambda x: whole(-1).fits(x) and x != 0)
    ]
    fsdp: Annotated[int, whole(1)]
    tensor: Annotated[int, whole(1)]
    replicated: Annotated[Any, NAMES] = ()


@dataclass(frozen=True)
class Checkpoint:
    """`checkpoint`: when states are saved, which stay and which one is used."""

    every_steps: Annotated[int, whole(1)]
    keep_latest: Annotated[int, whole(1)]
    keep_best: Annotated[int, whole(1)]
    keep_finished: Annotated[bool, BOOL]
    use: Annotated[str, one_of("best", "latest")]
    outputs_dir: Annotated[str | None, PATH.or_none()] = None


@dataclass(frozen=True)
class Logging:
    """`logging`: what is told while a model trains.

    Which writers there are is checked where they are (`kd_jax.training.writers`).
    """

    every_steps: Annotated[int, whole(1)]
    writers: Annotated[Any, NAMES]


@dataclass(frozen=True)
class TransferSet:
    """`transfer_sets.*`: inputs that a model labels, for others to learn from.

    `source` is checked where it is read (`kd_jax.experiments.transfer_sets.generate`).
    `labels`: what it gives; "none" where its students ask it themselves. `confidence` and
    `per_class` choose rows by what the model says of them, `near_duplicate` and `max_overlap` sift
    them.
    `base` is the filtered set that takes the training split's place.
    """

    teacher: Annotated[str, TEXT]
    source: Annotated[Any, Options(("name",))]
    labels: Annotated[str, one_of("soft", "hard", "none")]
    temperature: Annotated[float, POSITIVE]
    confidence: Annotated[float, SHARE]
    per_class: Annotated[int | None, whole(1).or_none()]
    near_duplicate: Annotated[float, SHARE]
    max_overlap: Annotated[float, SHARE]
    # New inputs may also grow from a filtered set, to keep bad rows from multiplying.
    base: Annotated[str, TEXT] = TRAIN
    # The folder of one that another run made of the same, RUN/transfer_sets/NAME.
    restore: Annotated[str | None, TEXT] = None


@dataclass(frozen=True)
class TrustedSet:
    """`trusted_sets.*`: training rows without those that a model finds suspect.

    `label_errors`: whether labels are; those that confident learning picks where `label_share` is
    None, else this share of the labelled ones. `folds`: 0 where the model named by `judge` scores
    rows as it is, else into how many parts they are divided, each scored by a model like it that
    learned from the others. `poison`: the share of each class that is suspect for its spectral
    signature, 1.5 times the poison that is feared. `mode`: "report" lists the rows and keeps them.
    """

    judge: Annotated[str, TEXT]
    label_errors: Annotated[bool, BOOL]
    label_share: Annotated[float | None, INSIDE.or_none()]
    folds: Annotated[
        # One fold would leave no rows to learn from.
        int, Value("0 or a whole number from 2 on", lambda x: whole(0).fits(x) and x != 1)
    ]
    poison: Annotated[float | None, INSIDE.or_none()]
    mode: Annotated[str, one_of("drop", "report")]

    @staticmethod
    def check_together(section: Mapping[str, Any], path: str) -> None:
        """Raises a ValueError where nothing is suspect."""
        # A search for label errors already gives the set something to do.
        if section["label_errors"]:
            return
        if section["label_share"] is not None:
            share = section["label_share"]
            raise ValueError(
                f"{path}.label_share must be None where label_errors is False, got {share}"
            )
        if section["poison"] is None:
            raise ValueError(f"{path} suspects nothing: label_errors is False and poison None")


class _Task:
    """The rule of `task`: a name, or a section with options."""

    def check(self, value: Any, path: str) -> None:
        """Raises a ValueError if it names no task; its options are checked by the task."""
        if not isinstance(value, str):
            Options(("name",)).check(value, path)


TASK = _Task()


@dataclass(frozen=True)
class Experiment:
    """A whole config."""

    name: Annotated[
        # The name becomes part of a folder's name, where a slash would open another folder.
        str, Value("a text without /", lambda value: TEXT.fits(value) and "/" not in value)
    ]
    seed: Annotated[int, whole(0)]
    data: Data
    view: Annotated[Any, VIEW]
    dtype: Annotated[str, one_of(*DTYPES)]
    training: Training
    compare: Compare
    evaluations: Annotated[Any, Each(Section(Evaluation))]
    parallel: Parallel
    checkpoint: Checkpoint
    logging: Logging
    models: Annotated[Any, Models()]
    task: Annotated[Any, TASK] = "classification"
    # None: the task's first metric.
    primary: Annotated[str | None, TEXT.or_none()] = None
    # Most experiments have no sets, and older configs have no such keys.
    transfer_sets: Annotated[Any, Maybe(Each(Section(TransferSet)))] = None
    trusted_sets: Annotated[Any, Maybe(Each(Section(TrustedSet)))] = None


def check_config(config: Mapping[str, Any]) -> None:
    """Checks the keys and values of a resolved config, each by itself and with its neighbours.

    Args:
      config: with defaults and what models inherit. Which datasets, models and terms there are is
        not known here.

    Raises:
      ValueError: in one line, naming the key's full path, what is wrong and what would be right.
    """
    # The empty path stands for the config itself, so messages begin with a key's name.
    Section(Experiment).check(config, "")


@dataclass(frozen=True)
class ModelPlan:
    """One model of an experiment.

    Attributes:
      name: its name in the config.
      model: what to build: `name` or `pretrained`, and options.
      view: how it sees the data.
      dtype: what it computes in.
      teachers: names of earlier models.
      cached: those of the teachers whose outputs are computed once, before training, instead of in
        every step.
      objective: name -> term; empty for a model that is used as it is.
      training: batch size, epochs, optimizer, ...
      restore: folder of a finished model to use instead of training one, or None.
      allow_weak: whether one that isn't trained here may be worse than always the largest class.
      seed_group: the model whose name seeds it: models that are `like` one another start alike and
        see the same batches.
      members: names of earlier models, if this one is their ensemble.
      data: what it learns from: "train", the training split, and names of sets.
      decay: of the moving average of itself that it learns from too, or None.
      condition: which teacher's output is part of its input, and how, or None.
      peers: names of models that it learns from, and they from it, while all of them are trained.
      cached_as: how the logits of the cached teachers are kept; nothing where all of them are.
    """

    name: str
    model: dict[str, Any]
    view: dict[str, Any]
    dtype: str
    teachers: tuple[str, ...]
    cached: tuple[str, ...]
    objective: dict[str, Any]
    training: dict[str, Any]
    restore: str | None
    seed_group: str
    members: tuple[str, ...] = ()
    data: tuple[str, ...] = (TRAIN,)
    decay: float | None = None
    condition: dict[str, Any] | None = None
    peers: tuple[str, ...] = ()
    allow_weak: bool = False
    cached_as: dict[str, Any] = field(default_factory=dict)

    @property
    def outputs(self) -> str | None:
        """Returns the file with its outputs, where nothing else is known of it, or None."""
        return self.model.get(OUTPUTS)

    @property
    def starts(self) -> tuple[str, ...]:
        """Returns the earlier models whose weights, or word embeddings, it starts from."""
        sections = (self.model, self.model.get(EMBEDDINGS) or {})
        return tuple(each[FROM_MODEL] for each in sections if FROM_MODEL in each)


@dataclass(frozen=True)
class Plan:
    """A checked experiment.

    Attributes:
      config: the resolved config, plain Python values, defaults filled in.
      groups: in the order of training; a group's models are trained together, by name.
      transfer_sets: name -> section, checked.
      trusted_sets: name -> section, checked.
      task: what its models predict, a `kd_jax.tasks.Task`.
      asked: names of the models that another one needs finished, such as teachers.
    """

    config: dict[str, Any]
    groups: tuple[tuple[ModelPlan, ...], ...]
    transfer_sets: dict[str, Any]
    trusted_sets: dict[str, Any]
    task: Any
    asked: frozenset[str] = frozenset()

    @property
    def taught(self) -> bool:
        """Returns whether a model learns from a teacher, a peer or its own average."""
        return any(model.teachers or model.peers or model.decay for model in self.models)

    @property
    def models(self) -> tuple[ModelPlan, ...]:
        """Returns all models, in the order of training."""
        return tuple(model for group in self.groups for model in group)

    def __getitem__(self, name: str) -> ModelPlan:
        return next(model for model in self.models if model.name == name)
