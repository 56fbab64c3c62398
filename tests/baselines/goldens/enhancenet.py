"""Makes enhancenet_weights and enhancenet.npz: the official graph, of 8 channels and 2 blocks, run by TensorFlow.

    git clone https://github.com/msmsajjadi/EnhanceNet-Code    # at a7309ca
    pip install tensorflow-cpu==2.21.0 pillow                  # in an environment of its own
    python enhancenet.py EnhanceNet-Code

The layers are nnlib.py's own; this file stands in for what TensorFlow 2 and SciPy no longer have. TensorFlow's V1 Saver
writes the weights, which numpy fills, seeded by the variables' names. enhancenet.npz holds, as [N, 3, H, W]: `lr` in
[0, 1], `residual` (the network's output), `skip` (its bicubic, less the means), `sr` (their sum with the means) and
`sr8` (as toimage writes it).
"""

import sys
import types
import zlib
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
MEANS = np.array([0.47614917, 0.45001204, 0.40904046])
CHANNELS, BLOCKS = 8, 2


def official_layers(tf, folder):
    def convolution2d(h, n, kernel_size, stride, padding, activation_fn):
        with tf.variable_scope(None, default_name="Conv"):
            weights = tf.get_variable("weights", [kernel_size, kernel_size, h.shape[-1], n])
            biases = tf.get_variable("biases", [n])
            return tf.nn.bias_add(tf.nn.conv2d(h, weights, stride, padding), biases)

    tf.contrib = types.SimpleNamespace(layers=types.SimpleNamespace(convolution2d=convolution2d))
    sys.modules["tensorflow"] = tf
    sys.modules["scipy"] = types.ModuleType("scipy")
    sys.modules["scipy.misc"] = sys.modules["scipy"].misc = types.ModuleType("scipy.misc")
    sys.path.insert(0, folder)
    import nnlib

    return nnlib


def fill(name, shape):
    """A variable's values: kernels that roughly keep the scale of their input, and small biases."""
    normal = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    return (normal / np.sqrt(np.prod(shape[:-1])) if len(shape) > 1 else 0.1 * normal).astype(np.float32)


def graph(tf, layers, xs):
    conv, relu, upsample = [layers.conv, CHANNELS], [layers.relu], [layers.upsample]
    blocks = [[layers.resi, [conv, relu, conv]]] * BLOCKS
    rest = [upsample, conv, relu, upsample, conv, relu, conv, relu, [layers.conv, 3]]
    residual = layers.NN("generator", [xs, conv, relu, *blocks, *rest])
    size = [4 * xs.shape[1], 4 * xs.shape[2]]
    skip = tf.image.resize_images(xs, size, method=tf.image.ResizeMethod.BICUBIC)
    return residual, skip, residual + skip + MEANS


def toimage(images):
    """scipy.misc.bytescale with cmin = 0 and cmax = 255."""
    return ((255 * images).clip(0, 255) + 0.5).astype(np.uint8)


def main(folder):
    import tensorflow.compat.v1 as tf

    tf.disable_eager_execution()
    lr = np.random.default_rng(0).random((2, 7, 9, 3), dtype=np.float32)
    xs = tf.placeholder(tf.float32, lr.shape)
    outputs = graph(tf, official_layers(tf, folder), xs)
    with tf.Session() as session:
        for variable in tf.global_variables():
            session.run(variable.assign(fill(variable.op.name, variable.shape.as_list())))
        saver = tf.train.Saver(write_version=tf.train.SaverDef.V1)
        saver.save(session, str(HERE / "enhancenet_weights"), write_meta_graph=False, write_state=False)
        residual, skip, sr = session.run(outputs, {xs: lr - MEANS})
    arrays = {"lr": lr, "residual": residual, "skip": skip, "sr": sr, "sr8": toimage(sr)}
    np.savez_compressed(HERE / "enhancenet.npz", **{name: a.transpose(0, 3, 1, 2) for name, a in arrays.items()})


if __name__ == "__main__":
    main(sys.argv[1])
