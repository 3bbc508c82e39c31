"""Files of torchvision's networks: VGG computed by PyTorch's own layers, ResNet by names and
shapes."""

import jax
import numpy as np
import pytest
import safetensors.numpy

from kd_jax.models import registry
from kd_jax.models.weights import load
from kd_jax.models.weights.formats import torch_files, weight_format

pytestmark = pytest.mark.torch

STAGES = {11: (1, 1, 2, 2, 2), 16: (2, 2, 3, 3, 3)}


def make_vgg(torch, depth, *, batch_norm):
    """VGG of a sixteenth of the channels, put together in torchvision's order."""
    nn, layers, inner = torch.nn, [], 3
    for channels, count in zip((4, 8, 16, 32, 32), STAGES[depth], strict=True):
        for _ in range(count):
            layers += [
                nn.Conv2d(inner, channels, 3, padding=1),
                *([nn.BatchNorm2d(channels)] if batch_norm else []),
            ]
            layers.append(nn.ReLU())
            inner = channels
        layers.append(nn.MaxPool2d(2, 2))
    head = [
        nn.Linear(32 * 49, 10),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(10, 12),
        nn.ReLU(),
        nn.Dropout(),
    ]
    model = nn.Module()
    model.features, model.avgpool = nn.Sequential(*layers), nn.AdaptiveAvgPool2d((7, 7))
    model.classifier = nn.Sequential(*head, nn.Linear(12, 5))
    torch.manual_seed(0)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if "running_var" in name:
                tensor.uniform_(0.5, 2)
            elif tensor.is_floating_point():
                tensor.add_(torch.randn_like(tensor) * 0.1)
    return model.eval()


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("depth", [11, 16])
def test_vgg_matches_pytorch(depth, batch_norm, tmp_path):
    torch = pytest.importorskip("torch")
    model = make_vgg(torch, depth, batch_norm=batch_norm)
    tensors = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    safetensors.numpy.save_file(tensors, tmp_path / "vgg.safetensors")
    module, variables = load.load(tmp_path / "vgg.safetensors")
    assert (module.depth, module.width, module.head, module.num_classes) == (
        depth,
        1 / 16,
        (10, 12),
        5,
    )
    images = np.random.default_rng(0).normal(size=(2, 75, 64, 3)).astype(np.float32)
    with torch.no_grad():
        x = model.avgpool(model.features(torch.tensor(images.transpose(0, 3, 1, 2))))
        want = model.classifier(torch.flatten(x, 1)).numpy()
    np.testing.assert_allclose(
        jax.jit(module.apply)(variables, images).logits, want, rtol=0, atol=1e-4
    )


@pytest.mark.parametrize("bottleneck", [False, True])
def test_resnet_is_known_by_torchvisions_names(bottleneck, tmp_path):
    spec = {
        "name": "resnet",
        "stem": 4,
        "blocks": (1, 2, 1, 1),
        "widths": (4, 6, 8, 10),
        "bottleneck": bottleneck,
    }
    module = registry.build(spec | {"num_classes": 5})
    variables = module.init(jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda x: np.float32(x + rng.uniform(0, 1, x.shape)), variables)
    tensors = weight_format.write(torch_files.RESNET, variables)
    last = "3" if bottleneck else "2"
    for name in (
        "conv1.weight",
        "bn1.running_mean",
        "layer2.1.conv1.weight",
        f"layer4.0.bn{last}.running_var",
        "layer2.0.downsample.0.weight",
        "layer2.0.downsample.1.bias",
        "fc.weight",
    ):
        assert name in tensors
    assert tensors["conv1.weight"].shape == (4, 3, 7, 7)
    assert ("layer1.0.downsample.0.weight" in tensors) == bottleneck
    tensors |= {"bn1.num_batches_tracked": np.zeros((), np.int64)}
    np.savez(tmp_path / "resnet.npz", **tensors)
    found, loaded = load.load(tmp_path / "resnet.npz")
    assert found == module
    jax.tree.map(np.testing.assert_array_equal, loaded, variables)


def test_a_vgg_of_no_known_depth_is_refused(tmp_path):
    tensors = {
        "features.0.weight": np.zeros((4, 3, 3, 3), np.float32),
        "classifier.6.weight": np.zeros((5, 12)),
    }
    np.savez(tmp_path / "vgg.npz", **tensors)
    with pytest.raises(ValueError, match=r"VGG has \[5, 8, 10, 13, 16\] convolutions, not 1"):
        load.load(tmp_path / "vgg.npz")


def test_other_files_are_not_opened(tmp_path):
    (tmp_path / "vgg16.pth").write_bytes(b"cos\nabort\n(tR.")
    with pytest.raises(ValueError, match="other files of weights are pickles, never opened"):
        load.load(tmp_path / "vgg16.pth")
