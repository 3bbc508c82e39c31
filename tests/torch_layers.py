"""PyTorch layers with weights worth testing, and those weights as a Linen module's variables."""

import flax.traverse_util
import numpy as np


def randomized(torch, network, seed=0):
    """Weights that keep the signal, normalizations other than fresh ones; the network's layers in
    order."""
    torch.manual_seed(seed)
    layers = [
        m
        for m in network.modules()
        if isinstance(m, (torch.nn.Conv2d, torch.nn.BatchNorm2d, torch.nn.Linear))
    ]
    for layer in layers:
        if isinstance(layer, torch.nn.BatchNorm2d):
            for tensor, low, high in (
                (layer.weight, 0.5, 1.5),
                (layer.bias, -0.5, 0.5),
                (layer.running_mean, -0.5, 0.5),
                (layer.running_var, 0.5, 1.5),
            ):
                torch.nn.init.uniform_(tensor, low, high)
        else:
            torch.nn.init.kaiming_normal_(layer.weight)
    return layers


def variables(layers, paths):
    """The layers' weights as variables, each at its path, a module's names joined by slashes."""
    flat = {}
    for layer, path in zip(layers, paths, strict=True):
        kernel = layer.weight.detach().numpy()
        if hasattr(layer, "running_mean"):
            flat[f"params/{path}/scale"] = kernel
            flat[f"batch_stats/{path}/mean"] = layer.running_mean.numpy()
            flat[f"batch_stats/{path}/var"] = layer.running_var.numpy()
        else:
            flat[f"params/{path}/kernel"] = (
                kernel.transpose(2, 3, 1, 0) if kernel.ndim == 4 else kernel.T
            )
        if layer.bias is not None:
            flat[f"params/{path}/bias"] = layer.bias.detach().numpy()
    return flax.traverse_util.unflatten_dict(flat, sep="/")


def result(torch, network, images):
    """What the network, in evaluation mode, says to images `[B, H, W, C]`: the tensor."""
    with torch.no_grad():
        return network.eval()(torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))))
