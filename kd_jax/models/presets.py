"""Architectures by the names under which they are published, as options of the families in
`kd_jax.models`.

Unless noted, `vggN`, `vggN_bn` and `resnet18` to `resnet152` are torchvision's, `cifar_resnetN` the
paper's for CIFAR-10 (akamaster's code), and the others those of the distillation benchmark of Tian
et al. (RepDistiller): its `resnet8` to `resnet110` and "x4" have projections as shortcuts, its VGGs
are called `vggN_cifar` here. The transformers are those of their papers, patches of 16x16 on images
of 224x224."""

from typing import Any

# The published head reads 7x7 positions in a row; with a mean its weights would not fit.
_IMAGENET_VGG = {
    "name": "vgg",
    "width": 1.0,
    "head": (4096, 4096),
    "dropout": 0.5,
    "pooling": "flatten",
}
_CIFAR_VGG = {
    "name": "vgg",
    "width": 1.0,
    "batch_norm": True,
    "head": (),
    "dropout": 0.0,
    # Three pools leave 4x4 positions of an image of 32x32; five would leave one.
    "pools": 3,
}
_IMAGENET_RESNET = {"name": "resnet", "stem": 64, "widths": (64, 128, 256, 512)}
_CIFAR_RESNET = {"name": "cifar_resnet", "stem": 16, "widths": (16, 32, 64)}
# The "x4" networks are four times as wide, but their stem only twice.
_X4 = {"name": "cifar_resnet", "stem": 32, "widths": (64, 128, 256), "shortcut": "projection"}
_BERT = {
    "name": "encoder",
    "width": 768,
    "layers": 12,
    "heads": 12,
    "intermediate": 3072,
    "max_positions": 512,
    "type_vocabulary": 2,
    "dropout": 0.1,
    "pooling": "cls",
}
_VIT = {
    "name": "vit",
    "image_size": 224,
    "patch": 16,
    "layers": 12,
    "dropout": 0.0,
    "layer_norm_epsilon": 1e-6,
}
# An attention head is 64 wide in every size.
_VIT_SIZES = {
    "tiny": {"width": 192, "heads": 3, "intermediate": 768},
    "small": {"width": 384, "heads": 6, "intermediate": 1536},
    "base": {"width": 768, "heads": 12, "intermediate": 3072},
}
_CIFAR_DEPTHS = (8, 14, 20, 32, 44, 56, 110)
_BLOCKS = {
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
    "resnet152": (3, 8, 36, 3),
}

PRESETS: dict[str, dict[str, Any]] = {
    **{f"vgg{n}": _IMAGENET_VGG | {"depth": n, "batch_norm": False} for n in (11, 13, 16, 19)},
    **{
        # torchvision's convolutions keep a bias beside BatchNorm, so its weights need a place.
        f"vgg{n}_bn": _IMAGENET_VGG | {"depth": n, "batch_norm": True, "keep_bias": True}
        for n in (11, 13, 16, 19)
    },
    **{f"vgg{n}_cifar": _CIFAR_VGG | {"depth": n, "keep_bias": True} for n in (8, 11, 13, 16, 19)},
    # The two shallow networks have basic blocks, the others bottlenecks, as in the paper.
    **{
        name: _IMAGENET_RESNET
        | {"blocks": blocks, "bottleneck": name not in ("resnet18", "resnet34")}
        for name, blocks in _BLOCKS.items()
    },
    "resnet50_cifar": _IMAGENET_RESNET
    | {"blocks": _BLOCKS["resnet50"], "bottleneck": True, "entry": "cifar"},
    # The paper's networks pad their shortcuts; RepDistiller's of the same depths project.
    **{f"cifar_resnet{n}": _CIFAR_RESNET | {"depth": n, "shortcut": "pad"} for n in _CIFAR_DEPTHS},
    **{f"resnet{n}": _CIFAR_RESNET | {"depth": n, "shortcut": "projection"} for n in _CIFAR_DEPTHS},
    "resnet8x4": _X4 | {"depth": 8},
    "resnet32x4": _X4 | {"depth": 32},
    **{
        f"wrn_{n}_{k}": {"name": "wide_resnet", "depth": n, "widen": k}
        for n in (16, 40)
        for k in (1, 2)
    },
    "mobilenet_v2_half": {"name": "mobilenet_v2", "width": 0.5, "expansion": 6},
    "shufflenet_v1_cifar": {
        "name": "shufflenet_v1",
        "stem": 24,
        "blocks": (4, 8, 4),
        "widths": (240, 480, 960),
        "groups": 3,
    },
    "shufflenet_v2_cifar": {
        "name": "shufflenet_v2",
        "stem": 24,
        "blocks": (4, 8, 4),
        "widths": (116, 232, 464),
        "last": 1024,
    },
    "vit_base": _VIT | _VIT_SIZES["base"] | {"distillation": False},
    **{
        f"deit_{size}": _VIT | sizes | {"distillation": False} for size, sizes in _VIT_SIZES.items()
    },
    **{
        f"deit_{size}_distilled": _VIT | sizes | {"distillation": True}
        for size, sizes in _VIT_SIZES.items()
    },
    **{
        f"bert_{size}": _BERT
        | {"width": width, "layers": n, "heads": width // 64, "intermediate": 4 * width}
        for size, n, width in (
            ("tiny", 2, 128),
            ("mini", 4, 256),
            ("small", 4, 512),
            ("medium", 8, 512),
        )
    },
    "bert_base": _BERT,
    "bert_large": _BERT | {"width": 1024, "layers": 24, "heads": 16, "intermediate": 4096},
    # DistilBERT drops the token types and every second layer of BERT.
    "distilbert_base": _BERT | {"family": "distilbert", "layers": 6, "type_vocabulary": 0},
    # RoBERTa has one token type, and its code another epsilon.
    "roberta_base": _BERT | {"family": "roberta", "type_vocabulary": 1, "layer_norm_epsilon": 1e-5},
    "mpnet_base": _BERT | {"family": "mpnet", "type_vocabulary": 0, "layer_norm_epsilon": 1e-5},
    "modernbert_base": {
        "name": "modernbert",
        "width": 768,
        "layers": 22,
        "heads": 12,
        "intermediate": 1152,
        "max_positions": 8192,
        "dropout": 0.0,
        "pooling": "cls",
        "head_pooling": "mean",
        "global_blocks": (0, 3, 6, 9, 12, 15, 18, 21),
    },
    # ELECTRA's small network projects narrow embeddings to its width.
    "electra_small": _BERT
    | {"family": "electra", "width": 256, "heads": 4, "intermediate": 1024, "embedding_width": 128},
}
"""Published name -> the options that build it, `name` the family's; what the data decides comes
beside: `num_classes` and, for texts, `vocabulary_size`."""
