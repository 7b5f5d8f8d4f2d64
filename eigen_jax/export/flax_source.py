"""A network as a folder that needs Flax and safetensors alone, written for people.

network.py                  the network, a line a layer
weights.safetensors         its variables by their paths
preprocessing.py            from pixels to what it sees; its arrays are in preprocessing.safetensors
pictures.py                 from a picture of any kind to pixels
classes.json                the names of the classes, in the order of the logits
predict.py                  classifies pictures

What is written computes as the search does, operation by operation: in other words XLA fuses otherwise, and last bits
are others.
"""

import inspect
import json
import runpy
from pathlib import Path

import jax
from safetensors.numpy import save

from eigen_jax import platforms
from eigen_jax.architecture import IMAGE, layer_shapes, times
from eigen_jax.data import pixels, preprocessing
from eigen_jax.data.preprocessing import ChannelTable, ContrastWhitening
from eigen_jax.export.network import TrainedModel
from eigen_jax.processor import ARRAYS, ImageProcessor
from eigen_jax.store import files

_HEAD = '''"""A network for images of {shape} and {classes} classes; README.md tells where it comes from.

    from network import load
    network, variables = load()
    logits = network.apply(variables, images)  # [N, {sizes}] float32, as preprocessing.py makes them, to [N, {classes}]
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import unflatten_dict
from safetensors.numpy import load_file
'''

# By what calls it in the lines of layers, in the order in which they use one another.
_HELPERS = {
    "norm_relu(": '''
def norm_relu(x, name):
    """Batch normalization by the averages of training, in float32, then ReLU."""
    y = nn.BatchNorm(use_running_average=True, epsilon=1e-5, dtype=jnp.float32, name=name)(x)
    # Not nn.relu, with which XLA would round otherwise than in the search.
    return jnp.where(y <= 0, 0, y).astype(x.dtype)
''',
    "Conv(": '''
class Conv(nn.Module):
    """Convolution without bias, SAME padding; batch normalization; ReLU."""

    channels: int
    kernel: int
    stride: int = 1

    @nn.compact
    def __call__(self, x):
        if self.kernel == 1 and jax.default_backend() == "cpu":
            y = Pointwise(self.channels, self.stride, name="conv")(x)
        else:
            side, options = (self.kernel, self.kernel), {"use_bias": False, "dtype": x.dtype}
            y = nn.Conv(self.channels, side, self.stride, **options, name="conv")(x)
        return norm_relu(y, "norm")


class Pointwise(nn.Module):
    """A 1 x 1 convolution as a matrix product, which a CPU computes faster."""

    channels: int
    stride: int

    @nn.compact
    def __call__(self, x):
        kernel = self.param("kernel", nn.initializers.he_normal(), (1, 1, x.shape[-1], self.channels))
        return x[:, :: self.stride, :: self.stride] @ kernel[0, 0].astype(x.dtype)
''',
    "depthwise(": '''
def depthwise(x, kernel, name):
    """Convolution of each channel by itself, without bias, SAME padding; batch normalization; ReLU."""
    options = {"feature_group_count": x.shape[-1], "use_bias": False, "dtype": x.dtype}
    y = nn.Conv(x.shape[-1], (kernel, kernel), **options, name=f"{name}_conv")(x)
    return norm_relu(y, f"{name}_norm")
''',
    "= max_pool(": '''
def max_pool(x):
    """2 x 2 max pooling; an odd side is padded at its end."""
    batch, height, width, channels = x.shape
    x = jnp.pad(x, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), constant_values=-jnp.inf)
    return x.reshape(batch, -(-height // 2), 2, -(-width // 2), 2, channels).max(axis=(2, 4))
''',
    "average_pool(": '''
def average_pool(x):
    """2 x 2 average pooling; at the end of an odd side, of the pixels that there are."""
    y = nn.avg_pool(x.astype(jnp.float32), (2, 2), (2, 2), "SAME", count_include_pad=False)
    return y.astype(x.dtype)
''',
}

_TAIL = '''

OPTIONS = {options}  # that the search compiles with, on a CPU


def load():
    """The network and its weights, the variables of Flax."""
    weights = load_file(Path(__file__).with_name("weights.safetensors"))
    return Network(), {{"batch_stats": {{}}, **unflatten_dict(weights, sep="/")}}


def logits_of(images, batch_size={batch_size}):
    """[N, {sizes}] float32 to [N, {classes}]; batches of the search's size give its bits, others round otherwise."""
    network, variables = load()
    padded = np.concatenate([images, np.repeat(images[-1:], -len(images) % batch_size, axis=0)])
    batches = padded.reshape(-1, batch_size, *images.shape[1:])
    options = OPTIONS if jax.default_backend() == "cpu" else {{}}
    try:
        apply = jax.jit(network.apply, compiler_options=options).lower(variables, batches[0]).compile()
    except jax.errors.JaxRuntimeError:  # this jaxlib does not know the option, and has other last bits
        apply = jax.jit(network.apply)
    return np.concatenate([apply(variables, batch) for batch in batches])[: len(images)]
'''

_TABLE = '''"""From pixels to what the network sees."""

from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

TABLE = load_file(Path(__file__).with_name("preprocessing.safetensors"))["table"]


def preprocess(pixels):
    """[N, {sizes}] uint8 to float32: each channel of the training images gets mean 0 and deviation 1.

    The table, [256, C], has what each value of a pixel becomes in each channel.
    """
    return TABLE[pixels, np.arange(TABLE.shape[1])]
'''

_WHITENING = '''"""From pixels to what the network sees."""

from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

FITTED = load_file(Path(__file__).with_name("preprocessing.safetensors"))
SCALE = {scale!r}
_CONSTANT_NORM = {constant!r}
_CHUNK = {chunk}  # images at a time


def preprocess(pixels):
    """[N, {sizes}] uint8 to float32: global contrast normalization, then {then} of the training images."""
    images = np.empty(pixels.shape, np.float32)
    for start in range(0, len(pixels), _CHUNK):
        chunk = global_contrast_normalize(pixels[start : start + _CHUNK], scale=SCALE)
        rows = (chunk.reshape(len(chunk), -1) - FITTED["mean"]){times}
        images[start : start + _CHUNK] = rows.reshape(chunk.shape)
    return images


{normalize}'''

_NONE = '''"""From pixels to what the network sees."""


def preprocess(images):
    """[N, {sizes}] to float32. The search was given arrays: prepare images as you did there, before this."""
    return images.astype("float32")
'''

_PREDICT = '''"""Classifies pictures, which Pillow reads, or arrays [N, {sizes}] of uint8: python predict.py FILE ..."""

import json
import sys
from pathlib import Path

import numpy as np

from network import logits_of
from preprocessing import preprocess

CLASSES = json.loads(Path(__file__).with_name("classes.json").read_text(encoding="utf-8"))


def read(path):
    """[N, {sizes}] uint8."""
    if path.endswith(".npy"):
        return np.load(path)
    try:
        from PIL import Image
    except ImportError:
        sys.exit("pictures need Pillow: pip install pillow")
    from pictures import to_pixels

    return to_pixels(Image.open(path), {shape})[None]


if __name__ == "__main__" and sys.argv[1:]:
    given = {{path: read(path) for path in sys.argv[1:]}}
    names = [path for path, pixels in given.items() for _ in pixels]
    all_logits = logits_of(preprocess(np.concatenate(list(given.values()))), batch_size=1)
    for name, logits in zip(names, all_logits):
        probabilities = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        best = probabilities.argsort()[::-1][:3]
        print(name, *(f"{{CLASSES[each]}} {{probabilities[each]:.1%}}" for each in best), sep="  ")
'''


def network_source(model: TrainedModel) -> str:
    """network.py, of which each layer is a line; raises an ExportError where a kind of layer cannot be said."""
    architecture, codes = model.architecture, model.by_kind("code", "Python")
    names = {IMAGE: "image"}
    lines = []
    if model.dtype != "float32":
        lines.append((f"image = image.astype(jnp.{model.dtype})", ""))
    for position, (layer, code, shape) in enumerate(
        zip(architecture.layers, codes, layer_shapes(architecture), strict=True)
    ):
        names[position] = f"x{position}"
        inputs = [names[source] for source in layer.inputs]
        expression = code(inputs, layer, shape[2], f"layer_{position}")
        lines.append((f"x{position} = {expression}", times(shape)))
    last = names[len(architecture.layers) - 1]
    lines.append((f"features = {last}.astype(jnp.float32).mean(axis=(1, 2))", "global average pooling"))
    lines.append((f'return nn.Dense({model.num_classes}, name="classifier")(features)', f"{model.num_classes} logits"))
    width = max(len(line) for line, _ in lines)
    body = [f"        {line:<{width}}  # {told}" if told else f"        {line}" for line, told in lines]
    used = "".join(line for line, _ in lines)
    used += "".join(source for call, source in _HELPERS.items() if call in used)  # of one another
    helpers = [source for call, source in _HELPERS.items() if call in used]
    network = '''
class Network(nn.Module):
    """Behind each line stands what it puts out: height x width x channels."""

    @nn.compact
    def __call__(self, image):
'''
    sizes = ", ".join(map(str, architecture.input_shape))
    head = _HEAD.format(shape=model.shape, classes=model.num_classes, sizes=sizes)
    tail = _TAIL.format(
        sizes=sizes,
        classes=model.num_classes,
        batch_size=model.batch_size,
        options=json.dumps(dict(platforms.CPU.compiler_options)),
    )
    return head + "\n" + "\n".join([*helpers, network]) + "\n".join(body) + "\n" + tail


def preprocessing_source(processor: ImageProcessor) -> str:
    """preprocessing.py."""
    sizes, fitted = ", ".join(map(str, processor.image_shape)), processor.preprocessor
    if isinstance(fitted, ChannelTable):
        return _TABLE.format(sizes=sizes)
    if isinstance(fitted, ContrastWhitening):
        return _WHITENING.format(
            sizes=sizes,
            scale=fitted.scale,
            constant=preprocessing._CONSTANT_NORM,
            chunk=preprocessing._CHUNK,
            then="the subtraction of a mean" if fitted.whitening.matrix is None else "the ZCA whitening",
            times="" if fitted.whitening.matrix is None else ' @ FITTED["matrix"]',
            normalize=inspect.getsource(preprocessing.global_contrast_normalize),
        )
    return _NONE.format(sizes=sizes)


def write_flax(folder: Path, model: TrainedModel) -> None:
    """Writes the files into a folder; raises OSError, and ExportError as `network_source` and `TrainedModel.check`."""
    shape = model.architecture.input_shape
    predict = _PREDICT.format(sizes=", ".join(map(str, shape)), shape=tuple(shape))
    files.write(folder / "network.py", network_source(model))
    files.write(folder / "weights.safetensors", save(model.weights))
    files.write(folder / "preprocessing.py", preprocessing_source(model.processor))
    if arrays := model.processor.arrays:
        files.write(folder / ARRAYS, save(arrays))
    files.write(folder / "pictures.py", inspect.getsource(pixels))
    model.write_classes(folder)
    files.write(folder / "predict.py", predict)
    network, pixels_to_images = (runpy.run_path(str(folder / f"{name}.py")) for name in ("network", "preprocessing"))
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # as where it is used
        model.check(lambda pixels: network["logits_of"](pixels_to_images["preprocess"](pixels), batch_size=len(pixels)))
