"""Trains the digit classifier and writes `1/digits.onnx` and `held-out/`.

    python train.py

The scans are those that scikit-learn bundles (`load_digits`: the test part of the UCI set "Optical Recognition of
Handwritten Digits", by E. Alpaydin and C. Kaynak, CC BY 4.0; 1797 of 8x8 pixels with 17 levels). One fifth is held out
by a fixed seed; the network never sees it before the figures printed at the end. They are taken with onnxruntime from
the exported file, through encoded pictures and the same preprocessing as the guest's.
"""
import functools
import hashlib
import io
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from PIL import Image, ImageOps
from scipy import ndimage
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import picture

SEED = 20261123
EPOCHS, BATCH, RATE = 200, 128, 2e-3
FOLDER = pathlib.Path(__file__).resolve().parent.parent
SHEET_COLUMNS = 20


def scans():
    """Pixels [n, 8, 8] from 0 to 255, light ink on black, and labels; the training part, then the held-out part."""
    data = load_digits()
    pixels = np.rint(data.images * (255 / 16)).astype(np.uint8)
    a, b, la, lb = train_test_split(pixels, data.target, test_size=0.2, random_state=SEED, stratify=data.target)
    return (a, la), (b, lb)


def varied(pixels, r):
    """The same digits as another hand and another scanner might give them, after the guest's preprocessing."""
    out = []
    for scan in pixels:
        # An affine map about the middle: rotation, shear, shift, and a scale that mostly shrinks, since callers leave
        # more of a margin than these scans have.
        turn, shear = r.normal(0, 0.12), r.normal(0, 0.12)
        scale = np.exp(r.uniform(-0.1, 0.35) + r.normal(0, 0.06, 2))
        matrix = np.array([[np.cos(turn), -np.sin(turn) + shear], [np.sin(turn), np.cos(turn)]]) * scale
        middle = np.array([3.5, 3.5])
        offset = middle - matrix @ middle + r.normal(0, 0.45, 2)
        image = ndimage.affine_transform(scan / 255.0, matrix, offset, order=1)
        if r.random() < 0.5:
            image = ndimage.gaussian_filter(image, r.uniform(0, 0.5))
        image = np.clip(image + r.normal(0, r.uniform(0, 0.06), image.shape), 0, 1)
        grid = picture.cells(image[..., None])
        out.append(grid if grid is not None else scan.astype(np.float32) / 255)
    return np.stack(out)[:, None]


def initial(r):
    def layer(*shape):
        return jnp.asarray(r.normal(0, (2 / np.prod(shape[1:])) ** 0.5, shape), jnp.float32)

    return {
        "conv1": layer(16, 1, 3, 3), "bias1": jnp.zeros(16),
        "conv2": layer(32, 16, 3, 3), "bias2": jnp.zeros(32),
        "conv3": layer(32, 32, 3, 3), "bias3": jnp.zeros(32),
        "dense4": layer(64, 512), "bias4": jnp.zeros(64),
        "dense5": layer(10, 64), "bias5": jnp.zeros(10),
    }  # fmt: skip


def logits(p, x, drop=None):
    def conv(x, name):
        y = jax.lax.conv_general_dilated(x, p["conv" + name], (1, 1), "SAME")
        return jax.nn.relu(y + p["bias" + name][:, None, None])

    x = conv(conv(x, "1"), "2")
    x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
    x = conv(x, "3").reshape(len(x), -1)
    if drop is not None:
        x = x * jax.random.bernoulli(drop, 0.7, x.shape) / 0.7
    x = jax.nn.relu(x @ p["dense4"].T + p["bias4"])
    return x @ p["dense5"].T + p["bias5"]


def loss(p, x, y, drop):
    scores = jax.nn.log_softmax(logits(p, x, drop))
    # A little label smoothing keeps the probabilities honest.
    target = 0.95 * jax.nn.one_hot(y, 10) + 0.005
    return -(target * scores).sum(-1).mean()


@functools.partial(jax.jit, donate_argnums=(0, 1, 2))
def step(p, m, v, x, y, drop, rate, t):
    grads = jax.grad(loss)(p, x, y, drop)
    m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, grads)
    v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, grads)
    p = jax.tree.map(
        lambda p, m, v: p * (1 - 0.02 * rate) - rate * (m / (1 - 0.9**t)) / (jnp.sqrt(v / (1 - 0.999**t)) + 1e-8),
        p, m, v,
    )  # fmt: skip
    return p, m, v


def train(pixels, labels):
    r = np.random.default_rng(SEED)
    p = initial(r)
    m, v = jax.tree.map(jnp.zeros_like, p), jax.tree.map(jnp.zeros_like, p)
    key = jax.random.key(SEED)
    steps, t = EPOCHS * (len(pixels) // BATCH), 0
    for _ in range(EPOCHS):
        order = r.permutation(len(pixels))
        x, y = varied(pixels[order], r), labels[order]
        for at in range(0, len(pixels) - BATCH + 1, BATCH):
            rate = RATE * 0.5 * (1 + np.cos(np.pi * t / steps))
            t += 1
            batch = slice(at, at + BATCH)
            p, m, v = step(p, m, v, x[batch], y[batch], jax.random.fold_in(key, t), rate, float(t))
    return {name: np.asarray(array) for name, array in p.items()}


def export(p, path):
    node, value = helper.make_node, helper.make_tensor_value_info
    same = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    graph = helper.make_graph(
        [
            node("Conv", ["image", "conv1", "bias1"], ["a"], **same), node("Relu", ["a"], ["b"]),
            node("Conv", ["b", "conv2", "bias2"], ["c"], **same), node("Relu", ["c"], ["d"]),
            node("MaxPool", ["d"], ["e"], kernel_shape=[2, 2], strides=[2, 2]),
            node("Conv", ["e", "conv3", "bias3"], ["f"], **same), node("Relu", ["f"], ["g"]),
            node("Flatten", ["g"], ["h"], axis=1),
            node("Gemm", ["h", "dense4", "bias4"], ["i"], transB=1), node("Relu", ["i"], ["j"]),
            node("Gemm", ["j", "dense5", "bias5"], ["k"], transB=1),
            node("Softmax", ["k"], ["probabilities"], axis=-1),
        ],
        "digits",
        [value("image", TensorProto.FLOAT, ["N", 1, picture.SIDE, picture.SIDE])],
        [value("probabilities", TensorProto.FLOAT, ["N", 10])],
        [numpy_helper.from_array(array, name) for name, array in p.items()],
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], producer_name="ringfence-digits")
    made.ir_version = 8
    onnx.checker.check_model(made, full_check=True)
    data = made.SerializeToString(deterministic=True)
    path.write_bytes(data)
    print(f"{path.name}: {len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()}")


def encoded(image, format, **options):
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def renderings():
    """The pictures that the held-out accuracy is taken on: a name, and a scan [8, 8] to an encoded file."""
    grey = lambda scan: Image.fromarray(scan)
    large = lambda scan, width, height: grey(scan).resize((width, height), Image.Resampling.BICUBIC)
    dark = lambda image: image.point(lambda v: 255 - v)
    margin = lambda image, width: ImageOps.expand(image, width, 0)
    return {
        "8x8 PNG, as scanned": lambda s: encoded(grey(s), "PNG"),
        "8x8 PNG, inverted": lambda s: encoded(dark(grey(s)), "PNG"),
        "28x28 PNG": lambda s: encoded(large(s, 28, 28), "PNG"),
        "28x28 PNG, inverted": lambda s: encoded(dark(large(s, 28, 28)), "PNG"),
        "200x300 PNG": lambda s: encoded(large(s, 200, 300), "PNG"),
        "200x300 PNG, inverted": lambda s: encoded(dark(large(s, 200, 300)), "PNG"),
        "28x28 PNG, of which a margin of 4": lambda s: encoded(margin(large(s, 20, 20), 4), "PNG"),
        "8x8 JPEG, quality 75": lambda s: encoded(grey(s), "JPEG", quality=75),
        "28x28 JPEG, quality 75": lambda s: encoded(large(s, 28, 28), "JPEG", quality=75),
        "200x300 RGB JPEG, inverted, quality 50": lambda s: encoded(
            dark(large(s, 200, 300)).convert("RGB"), "JPEG", quality=50
        ),
    }


def accuracies(path, pixels, labels):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for name, render in renderings().items():
        grids = np.stack([picture.cells(picture.read(render(scan))) for scan in pixels])[:, None]
        (probabilities,) = session.run(None, {"image": grids})
        assert np.allclose(probabilities.sum(-1), 1, atol=1e-5)
        right = (probabilities.argmax(-1) == labels).sum()
        print(f"held-out accuracy, {name}: {right}/{len(labels)} = {right / len(labels):.2%}")


def write_held_out(folder, pixels, labels):
    """The held-out scans as one sheet with its labels, and single ones in the formats that callers send."""
    folder.mkdir(exist_ok=True)
    rows = -(-len(pixels) // SHEET_COLUMNS)
    sheet = np.zeros((rows * 8, SHEET_COLUMNS * 8), np.uint8)
    for i, scan in enumerate(pixels):
        y, x = divmod(i, SHEET_COLUMNS)
        sheet[y * 8 : y * 8 + 8, x * 8 : x * 8 + 8] = scan
    (folder / "sheet.png").write_bytes(encoded(Image.fromarray(sheet), "PNG", optimize=True))
    lines = ["".join(map(str, labels[i : i + SHEET_COLUMNS])) for i in range(0, len(labels), SHEET_COLUMNS)]
    (folder / "sheet.txt").write_text("\n".join(lines) + "\n")

    first = {digit: Image.fromarray(pixels[list(labels).index(digit)]) for digit in range(10)}
    bicubic = Image.Resampling.BICUBIC
    dark = lambda image: image.point(lambda v: 255 - v)
    # Ink on nothing: the scan is the alpha channel of an even dark blue.
    ink = Image.merge("RGBA", [Image.new("L", (64, 64), v) for v in (20, 20, 90)] + [first[5].resize((64, 64), bicubic)])
    deep = Image.fromarray(np.asarray(first[2].resize((28, 28), bicubic)).astype(np.uint16) * 257)
    pictures = {
        "seven.png": encoded(dark(first[7].resize((200, 300), bicubic)), "PNG", optimize=True),
        "three.png": encoded(first[3], "PNG"),
        "eight.png": encoded(first[8].resize((28, 28), bicubic).convert("RGB"), "PNG"),
        "two.png": encoded(deep, "PNG"),
        "five.png": encoded(ink, "PNG", optimize=True),
        "four.jpg": encoded(dark(first[4].resize((120, 160), bicubic)).convert("RGB"), "JPEG", quality=80),
    }
    for name, data in pictures.items():
        (folder / name).write_bytes(data)


def main():
    started = time.monotonic()
    (pixels, labels), (held_pixels, held_labels) = scans()
    print(f"{len(labels)} scans to learn from, {len(held_labels)} held out")
    p = train(pixels, labels)
    print(f"{sum(a.size for a in p.values())} parameters, trained in {time.monotonic() - started:.0f} s")
    path = FOLDER / "1" / "digits.onnx"
    export(p, path)
    accuracies(path, held_pixels, held_labels)
    write_held_out(FOLDER / "held-out", held_pixels, held_labels)


if __name__ == "__main__":
    main()
