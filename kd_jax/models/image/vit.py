"""Vision transformers, ViT and DeiT."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Real

from kd_jax.core.types import Array, Count, ModelOutput
from kd_jax.models.image import vgg
from kd_jax.models.layers import normalization, transformer
from kd_jax.models.layers.dropout import Dropout


class VisionTransformer(nn.Module):
    """Patches, a class token, pre-LayerNorm blocks, classifier; DeiT's distillation token as an
    option.

    Features: `embeddings` `[B, T, width]`, the class token (and distillation token) first, then the
    patches row by row; for each block `i`, `block_i` `[B, T, width]`, `attention_i` `[B, heads, T,
    T]`, scaled scores before the softmax, in at least float32, and `query_i`, `key_i`, `value_i`
    `[B, heads, T, width / heads]`; `pooled` `[B, width]`, the class token's normalized state, what
    the classifier reads. With a distillation token: `pooled_distillation` `[B, width]`,
    `class_logits` and `distillation_logits` `[B, K]`, which a term can train each by its own
    target; the logits are their mean.

    Attributes:
      num_classes: K.
      image_size: height and width of the images, a multiple of `patch`.
      patch: height and width of a patch.
      width: of the blocks, a multiple of `heads`.
      layers: number of blocks.
      heads: attention heads of a block.
      intermediate: width of a block's hidden layer.
      dropout: rate in [0, 1), on embeddings, attention weights and both sublayers' results.
      distillation: whether there is a second token with a classifier of its own.
      remat: what of each block the backward pass computes again, as in `layers.transformer`.
      scan: whether the blocks are one loop over stacked parameters.
      query_chunk_size: of how many queries attention's scores are in memory at once; 0: of all.
      layer_norm_epsilon: added to the variance; the published value.

    References:
      Dosovitskiy et al. `An Image is Worth 16x16 Words <https://arxiv.org/abs/2010.11929>`_, 2020.
      Touvron et al. `Training Data-Efficient Image Transformers
      <https://arxiv.org/abs/2012.12877>`_, 2020.
    """

    num_classes: int
    image_size: int
    patch: int
    width: int
    layers: int
    heads: int
    intermediate: int
    dropout: float
    distillation: bool
    remat: transformer.Remat = False
    scan: bool = False
    query_chunk_size: Count = 0
    layer_norm_epsilon: float = 1e-12

    def __post_init__(self) -> None:
        if self.width % self.heads or self.image_size % self.patch:
            raise ValueError(
                "width must be a multiple of heads, and image_size of patch, got"
                f" width {self.width}, heads {self.heads}, image_size {self.image_size}, patch"
                f" {self.patch}"
            )
        super().__post_init__()

    @nn.compact
    def __call__(self, images: Real[Array, "b h w c"], *, train: bool = False) -> ModelOutput:
        """Classifies images.

        Args:
          images: `[B, image_size, image_size, C]`, cast to the dtype of the parameters.
          train: whether to drop out, by the random stream "dropout".

        Returns:
          Logits `[B, K]` in at least float32, and the features.

        Raises:
          ValueError: if the images have another size.
        """
        x = embeddings = Dropout(self.dropout, deterministic=not train)(self._embed(images))
        x, features = transformer.run_blocks(
            x,
            # Every patch counts, so there is no mask.
            None,
            layers=self.layers,
            remat=self.remat,
            scan=self.scan,
            query_chunk_size=self.query_chunk_size,
            heads=self.heads,
            intermediate=self.intermediate,
            dropout=self.dropout,
            layer_norm_epsilon=self.layer_norm_epsilon,
            norm_first=True,
            train=train,
        )
        x = transformer.layer_norm(self.layer_norm_epsilon, "norm")(x)
        features |= {"embeddings": embeddings, "pooled": x[:, 0]}
        # The class token is first, the distillation token second, as in the published weights.
        logits = self._classify(x[:, 0], "classifier")
        if self.distillation:
            taught = self._classify(x[:, 1], "distillation_classifier")
            features |= {
                "pooled_distillation": x[:, 1],
                "class_logits": logits,
                "distillation_logits": taught,
            }
            # The mean of both classifiers is what DeiT predicts with.
            logits = (logits + taught) / 2
        return ModelOutput(logits, features)

    def _embed(self, images: Real[Array, "b h w c"]) -> jax.Array:
        """Tokens and patches with their positions, `[B, T, width]`."""
        x = vgg.as_images(self, images)
        # The table of positions has one row for each patch of this size.
        if x.shape[1:3] != (self.image_size, self.image_size):
            raise ValueError(
                f"the model reads images of {self.image_size} x {self.image_size}, got {x.shape[1]}"
                f" x {x.shape[2]};"
                " give its view that size"
            )
        side = (self.patch, self.patch)
        # A convolution whose stride is its kernel is one linear map for each patch.
        x = nn.Conv(
            self.width, side, side, "VALID", kernel_init=transformer.INITIALIZER, name="patches"
        )(x)
        x = x.reshape(x.shape[0], -1, self.width)
        names = ("class_token", "distillation_token") if self.distillation else ("class_token",)
        # Tokens are parameters, equal for every image until attention has mixed them.
        tokens = [self.param(name, transformer.INITIALIZER, (1, 1, self.width)) for name in names]
        x = jnp.concatenate(
            [jnp.broadcast_to(token, (x.shape[0], 1, self.width)) for token in tokens] + [x], axis=1
        )
        # Learned positions, tokens included; attention alone does not see the order.
        return x + self.param("positions", transformer.INITIALIZER, (1, *x.shape[1:]))

    def _classify(self, x: Array, name: str) -> jax.Array:
        logits = transformer.dense(self.num_classes, name)(x)
        return logits.astype(normalization.at_least_float32(logits.dtype))
