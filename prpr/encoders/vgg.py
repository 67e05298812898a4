"""VGG-16 in Flax: the 4096 features that StyleGAN's precision and recall are measured in.

Notation: x (N, 224, 224, 3), normalised; features (N, 4096), the second fully connected layer
after its relu ("fc2_relu"; the third, 1000 classes, is left out).

The layout is torchvision's, configuration D; parameters have its names, with "_" for ".".
Normalisation is ImageNet's, as in torch-fidelity. StyleGAN's own file, vgg16.pt, is said by an
independent port (GenForce's Hammer) to differ in names only and to resize as "legacy_tf"; no copy
of it was at hand to check that.
Source: Simonyan & Zisserman 2015 (1409.1556); as features of precision and recall: Kynkäänniemi et
al. 2019 (1904.06991), whose released network gives "features from FC layer with shape=(n, 4096)".
"""

import flax.linen as nn
import jax

from prpr.encoders.compiled import Spec, Variables, imagenet

SIZE = 224
_HIGHEST = jax.lax.Precision.HIGHEST
# Convolutions before each of the five pools, and their width.
STAGES = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))


class VGG16(nn.Module):
    """normalised images -> features.

    Attributes:
      divide: all widths are divided by it; 1 for the published network.
    """

    divide: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        index = 0  # in the original's list of layers, relus and pools included
        for convolutions, channels in STAGES:
            for _ in range(convolutions):
                x = nn.Conv(
                    channels // self.divide,
                    (3, 3),
                    padding=[(1, 1), (1, 1)],
                    precision=_HIGHEST,
                    name=f"features_{index}",
                )(x)
                x = nn.relu(x)
                index += 2
            x = nn.max_pool(x, (2, 2), (2, 2))
            index += 1
        # The original flattens (C, 7, 7).
        x = x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1)
        for layer in (0, 3):
            x = nn.Dense(4096 // self.divide, precision=_HIGHEST, name=f"classifier_{layer}")(x)
            x = nn.relu(x)
        return x


def spec(name: str, resize: str, module: VGG16 | None = None) -> Spec:
    """The network for `compiled.build`; a narrower `module` is for tests."""
    del name, resize
    network = module or VGG16()

    def apply(variables: Variables, x: jax.Array) -> tuple[jax.Array, None]:
        return network.apply(variables, imagenet(x)), None  # pyright: ignore[reportReturnType]

    return Spec(network, SIZE, apply)
