"""Resizes, converts and normalizes images as a model reads them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from kd_jax.data.readers import image_decoding
from kd_jax.data.source import Source
from kd_jax.data.views.augmentation import Draws, augment


@dataclass(frozen=True)
class ImageView:
    """A view of images: (x / 255 - mean) / std.

    Attributes:
      size: height and width to resize to, bilinearly; None: as they are.
      mean: one value, or one for each channel.
      std: the same.
      channels: 1 or 3; None: as they are.
    """

    size: tuple[int, int] | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    channels: int | None

    def prepare(self, source: Source) -> "PreparedImages":
        """Resizes and converts a whole source once, unless the result would not fit in memory.

        Raises:
          ValueError: if it holds text, if its images differ in size and `size` is None, or if
            channels, mean and std don't fit each other.
        """
        if source.modality != "image":
            raise ValueError(
                f"an image view can't read {source.name!r}, which holds {source.modality}"
            )
        if self.size is None and not isinstance(source.inputs, np.ndarray):
            raise ValueError(
                f"the images of {source.name!r} may differ in size; give the view a size"
            )
        example = self.convert(source.inputs[0])
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, example.shape[-1]):
                raise ValueError(
                    f"{name} has {len(values)} values for images of {example.shape[-1]} channels"
                )
        images = source.inputs
        same = isinstance(images, np.ndarray) and example.shape == images.shape[1:]
        # Otherwise images are converted when a batch is gathered, again in each epoch. They are
        # kept as uint8, a quarter of what normalized ones take.
        if not same and example.nbytes * len(source) <= image_decoding.MEMORY:
            images = np.empty((len(source), *example.shape), np.uint8)
            for index, image in enumerate(
                image_decoding.show_progress(source.inputs, len(source), "resizing images")
            ):
                images[index] = self.convert(image)
        return PreparedImages(images, self)

    def convert(self, image: np.ndarray) -> np.ndarray:
        """Resizes one image and converts its channels, uint8 [h, w, c] -> uint8 [H, W, C]."""
        if self.channels is not None:
            image = image_decoding.convert_channels(image, self.channels)
        if self.size is None or image.shape[:2] == tuple(self.size):
            return image
        height, width = self.size
        picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
        resized = np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))
        return resized[..., None] if image.shape[-1] == 1 else resized


class PreparedImages:
    """A source's images at a view's size; `lengths` is None, since images have no length."""

    lengths = None

    def __init__(self, images: np.ndarray | Sequence, view: ImageView):
        self._images, self._view = images, view
        self._mean = np.asarray(view.mean, np.float32)
        self._std = np.asarray(view.std, np.float32)

    def gather(
        self, indices: np.ndarray, length: int | None, draws: Draws | None = None
    ) -> dict[str, np.ndarray]:
        """Returns `images` [b, H, W, C] float32 of the examples at `indices`.

        Args:
          indices: [b] positions in the source.
          length: ignored; it is for text.
          draws: how each image is augmented; None: not at all.
        """
        del length
        if isinstance(self._images, np.ndarray):
            images = self._images[indices]
        else:
            images = np.stack([self._view.convert(self._images[int(index)]) for index in indices])
        # Before normalization, since what a shift leaves empty is black, which is 0 only in uint8.
        if draws is not None:
            images = augment(images, draws)
        return {"images": (images.astype(np.float32) / 255 - self._mean) / self._std}
