import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd_jax.models import registry
from kd_jax.models.weights import load
from kd_jax.models.weights.formats import torch_files, weight_format

pytestmark = pytest.mark.torch

torch = pytest.importorskip("torch")


class Block(torch.nn.Module):
    """A basic block with option A, written from the paper; names as in akamaster's files."""

    def __init__(self, inner, width, stride):
        super().__init__()
        self.conv1 = torch.nn.Conv2d(inner, width, 3, stride, 1, bias=False)
        self.bn1 = torch.nn.BatchNorm2d(width)
        self.conv2 = torch.nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = torch.nn.BatchNorm2d(width)
        self.stride, self.missing = stride, width - inner

    def forward(self, x):
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        if self.stride > 1 or self.missing:
            half = self.missing // 2
            x = torch.nn.functional.pad(
                x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, half, half)
            )
        return torch.relu(y + x)


class Network(torch.nn.Module):
    def __init__(self, blocks=2, widths=(4, 8, 16), classes=5):
        super().__init__()
        self.conv1 = torch.nn.Conv2d(3, widths[0], 3, 1, 1, bias=False)
        self.bn1 = torch.nn.BatchNorm2d(widths[0])
        inner = widths[0]
        for stage, width in enumerate(widths, start=1):
            layer = [
                Block(inner if i == 0 else width, width, 2 if i == 0 and stage > 1 else 1)
                for i in range(blocks)
            ]
            setattr(self, f"layer{stage}", torch.nn.Sequential(*layer))
            inner = width
        self.linear = torch.nn.Linear(inner, classes)

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean(dim=(2, 3)))


@pytest.fixture(scope="module")
def original():
    torch.manual_seed(0)
    network = Network().eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor, low, high in (
                (module.running_mean, -1, 1),
                (module.running_var, 0.5, 2),
                (module.weight, -1, 1),
            ):
                torch.nn.init.uniform_(tensor, low, high)
            torch.nn.init.uniform_(module.bias, -1, 1)
    return network


@pytest.fixture
def tensors(original):
    return {name: tensor.numpy() for name, tensor in original.state_dict().items()}


@pytest.fixture
def save(tmp_path):
    def write(tensors):
        np.savez(tmp_path / "resnet.npz", **tensors)
        return tmp_path / "resnet.npz"

    return write


@pytest.mark.parametrize("side", [32, 13])
def test_it_computes_what_pytorch_computes(original, tensors, save, side):
    module, variables = load.load(save(tensors))
    assert (module.depth, module.stem, module.widths, module.num_classes) == (14, 4, (4, 8, 16), 5)
    images = np.random.default_rng(0).normal(size=(3, side, side, 3)).astype(np.float32)
    with torch.no_grad():
        want = original(torch.from_numpy(images.transpose(0, 3, 1, 2))).numpy()
    np.testing.assert_allclose(
        jax.jit(module.apply)(variables, images).logits, want, rtol=1e-4, atol=1e-4
    )


def test_another_number_of_classes_gets_a_new_classifier_and_a_warning(tensors, save, caplog):
    with caplog.at_level(logging.WARNING):
        module, variables = load.load(save(tensors), 3, seed=1)
    assert "has no classifier for 3 classes; a random one takes its place" in caplog.text
    assert module.apply(variables, jnp.zeros((1, 8, 8, 3))).logits.shape == (1, 3)
    np.testing.assert_array_equal(
        variables["params"]["conv"]["kernel"], tensors["conv1.weight"].transpose(2, 3, 1, 0)
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer2.1.bn2.bias": None}, r"lacks the tensors \['layer2.1.bn2.bias'\]"),
        ({"conv1.weight": None}, "the tensor 'conv1.weight' is missing or a scalar"),
        (
            {"linear.weight": None},
            "of no known network: neither torchvision's VGG or ResNet nor akamaster's CIFAR ResNet",
        ),
        (
            {"layer1.0.bn1.weight": np.zeros(9, np.float32)},
            r"'layer1.0.bn1.weight' must be floats \(4,\)",
        ),
        ({"linear.bias": np.zeros(5, np.int32)}, "'linear.bias' must be floats"),
        (
            {"layer9.0.conv1.weight": np.zeros(1)},
            r"belong to nothing in the module: \['layer9.0.conv1.weight'\]",
        ),
        (
            {"layer2.0.shortcut.0.weight": np.zeros(1)},
            "has no weights in its shortcuts, these tensors have",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_refused(tensors, save, change, message):
    changed = {name: tensor for name, tensor in (tensors | change).items() if tensor is not None}
    with pytest.raises(ValueError, match=message):
        load.load(save(changed))


def test_a_pickled_object_is_refused(save):
    with pytest.raises(ValueError, match="is no npz file of arrays, or is damaged"):
        load.load(save({"conv1.weight": np.array([{}], dtype=object)}))


def test_a_truncated_file_is_refused(tensors, save):
    path = save(tensors)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ValueError, match="is no npz file of arrays, or is damaged"):
        load.load(path)


def test_options_that_the_network_does_not_have_are_refused(tensors, save):
    with pytest.raises(ValueError, match="model 'cifar_resnet' has no option 'dropout'"):
        load.load(save(tensors), dropout=0.1)


def test_writing_is_the_inverse_of_reading(tensors, save):
    module, variables = load.load(save(tensors))
    written = weight_format.write(torch_files.AKAMASTER, variables)
    assert set(written) == {name for name in tensors if not name.endswith("num_batches_tracked")}
    for name, tensor in written.items():
        np.testing.assert_array_equal(tensor, tensors[name])
    assert registry.build(registry.describe(module)) == module
