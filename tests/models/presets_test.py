"""Parameter counts of the table of published architectures: torchvision's, akamaster's,
RepDistiller's, the papers'."""

import jax
import jax.numpy as jnp
import pytest

from kd_jax.models import registry
from kd_jax.models.presets import PRESETS

pytestmark = pytest.mark.slow

IMAGENET = {
    "vgg11": 132_863_336,
    "vgg13": 133_047_848,
    "vgg16": 138_357_544,
    "vgg19": 143_667_240,
    "vgg11_bn": 132_868_840,
    "vgg13_bn": 133_053_736,
    "vgg16_bn": 138_365_992,
    "vgg19_bn": 143_678_248,
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
}
"""torchvision's, for 1000 classes."""

CIFAR10 = {
    "cifar_resnet20": 269_722,
    "cifar_resnet32": 464_154,
    "cifar_resnet44": 658_586,
    "cifar_resnet56": 853_018,
    "cifar_resnet110": 1_727_962,
}
"""akamaster's, for 10 classes."""

CIFAR100 = {
    "vgg8_cifar": 3_965_028,
    "vgg11_cifar": 9_277_284,
    "vgg13_cifar": 9_462_180,
    "vgg16_cifar": 14_774_436,
    "vgg19_cifar": 20_086_692,
    "resnet8": 83_892,
    "resnet14": 181_108,
    "resnet20": 278_324,
    "resnet32": 472_756,
    "resnet44": 667_188,
    "resnet56": 861_620,
    "resnet110": 1_736_564,
    "resnet8x4": 1_233_540,
    "resnet32x4": 7_433_860,
    "resnet50_cifar": 23_705_252,
    "wrn_16_1": 180_916,
    "wrn_16_2": 703_284,
    "wrn_40_1": 569_780,
    "wrn_40_2": 2_255_156,
    "mobilenet_v2_half": 812_836,
    "shufflenet_v1_cifar": 949_258,
    "shufflenet_v2_cifar": 1_355_528,
}
"""RepDistiller's, for 100 classes, counted in its PyTorch modules."""

VISION_TRANSFORMERS = {
    "vit_base": 86_567_656,
    "deit_tiny": 5_717_416,
    "deit_small": 22_050_664,
    "deit_base": 86_567_656,
    "deit_tiny_distilled": 5_910_800,
    "deit_small_distilled": 22_436_432,
    "deit_base_distilled": 87_338_192,
}
"""timm's, which hold the papers' weights, for 1000 classes."""

TEXT = {
    "bert_tiny": (30_522, 4_386_178),
    "bert_mini": (30_522, 11_171_074),
    "bert_small": (30_522, 28_764_674),
    "bert_medium": (30_522, 41_374_210),
    "bert_base": (30_522, 109_483_778),
    "bert_large": (30_522, 335_143_938),
    "distilbert_base": (30_522, 66_955_010),
    "roberta_base": (50_265, 124_647_170),
    "electra_small": (30_522, 13_549_314),
}
"""Vocabulary, and transformers' count of the sequence classifier with 2 classes."""

COUNTS = [
    (name, classes, side, count)
    for table, classes, side in (
        (IMAGENET, 1000, 224),
        (CIFAR10, 10, 32),
        (CIFAR100, 100, 32),
        (VISION_TRANSFORMERS, 1000, 224),
    )
    for name, count in table.items()
]


@pytest.mark.parametrize(
    ("name", "classes", "side", "count"), COUNTS, ids=[row[0] for row in COUNTS]
)
def test_parameter_counts_are_the_published_ones(name, classes, side, count):
    module = registry.build({"name": name, "num_classes": classes})
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, side, side, 3)))["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == count


@pytest.mark.parametrize("name", TEXT)
def test_parameter_counts_of_text_encoders_are_the_published_ones(name):
    vocabulary, count = TEXT[name]
    module = registry.build({"name": name, "num_classes": 2, "vocabulary_size": vocabulary})
    ids = jnp.zeros((1, 1), jnp.int32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), ids, ids)["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == count


@pytest.mark.parametrize("name", PRESETS)
def test_every_row_builds_a_family_with_all_options_but_the_sizes_of_the_data(name):
    family = PRESETS[name]["name"]
    of_text = family in ("encoder", "modernbert")
    sizes = {"num_classes": 3} | ({"vocabulary_size": 7} if of_text else {})
    assert type(registry.build(sizes | {"name": name})) is registry.MODELS[family]
    assert not set(sizes) & set(PRESETS[name])


def test_options_beside_a_published_name_override_the_table():
    assert registry.build({"name": "resnet50", "num_classes": 3, "stem": 32}) == registry.build(
        {
            "name": "resnet",
            "num_classes": 3,
            "stem": 32,
            "blocks": (3, 4, 6, 3),
            "widths": (64, 128, 256, 512),
        }
        | {"bottleneck": True}
    )
    assert PRESETS["resnet50"]["stem"] == 64


def test_an_option_that_the_family_lacks_is_refused_by_the_familys_name():
    with pytest.raises(ValueError, match="model 'resnet' has no option 'depth'"):
        registry.build({"name": "resnet50", "num_classes": 3, "depth": 50})


def test_no_family_is_hidden_by_a_published_name_and_both_are_listed():
    assert not set(PRESETS) & set(registry.MODELS)
    with pytest.raises(
        ValueError, match=r"no model 'resnet51'; .*'resnet', .*as published \[.*'resnet50', .*\]"
    ):
        registry.build({"name": "resnet51"})
