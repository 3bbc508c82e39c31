"""The PyTorch networks that benchmarks race against: image networks as in the papers' code, and a
BERT with mean pooling."""

from typing import Any

import torch


class Block(torch.nn.Module):
    """Two 3x3 convolutions beside a shortcut: padded with zeros (option A) or projected."""

    def __init__(self, inner: int, width: int, stride: int, *, project: bool):
        super().__init__()
        nn, change = torch.nn, inner != width or stride > 1
        self.first, self.norm = (
            nn.Conv2d(inner, width, 3, stride, 1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.second, self.last = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.stride, self.missing, self.shortcut = stride, width - inner, None
        if change and project:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inner, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x):
        """`[B, C, H, W]` -> the block's result."""
        y = self.last(self.second(torch.relu(self.norm(self.first(x)))))
        if self.shortcut is not None:
            x = self.shortcut(x)
        elif self.missing:
            half = self.missing // 2
            x = torch.nn.functional.pad(
                x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, half, half)
            )
        return torch.relu(y + x)


class ResNet(torch.nn.Module):
    """Three stages of blocks on small images, as `CifarResNet`."""

    def __init__(
        self, blocks: int, stem: int, widths: tuple[int, ...], *, classes: int, project: bool
    ):
        super().__init__()
        nn, layers, inner = torch.nn, [], stem
        for stage, width in enumerate(widths):
            for i in range(blocks):
                layers.append(Block(inner, width, 2 if stage and not i else 1, project=project))
                inner = width
        self.stem = nn.Sequential(
            nn.Conv2d(3, stem, 3, 1, 1, bias=False), nn.BatchNorm2d(stem), nn.ReLU()
        )
        self.blocks, self.classifier = nn.Sequential(*layers), nn.Linear(inner, classes)

    def forward(self, x):
        """`[B, 3, 32, 32]` -> logits."""
        return self.classifier(self.blocks(self.stem(x)).mean(dim=(2, 3)))


class MeanClassifier(torch.nn.Module):
    """A BERT of transformers, the mean of its states, and a linear layer."""

    def __init__(self, encoder: Any, classes: int):
        super().__init__()
        self.encoder, self.drop = encoder, torch.nn.Dropout(encoder.config.hidden_dropout_prob)
        self.classifier = torch.nn.Linear(encoder.config.hidden_size, classes)

    def forward(self, input_ids, attention_mask):
        """`[B, T]` ids and mask -> logits."""
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask[..., None].to(states.dtype)
        return self.classifier(self.drop((states * mask).sum(1) / mask.sum(1)))
