"""Makes the graphs and the example inputs of the templates.

Needs numpy, onnx and pillow; writes into the folders beside it, the same
bytes each time.
"""

import math
import struct
import wave
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image, ImageDraw

HERE = Path(__file__).parent
OPSET = 17


def save(path, nodes, inputs, outputs, constants):
    graph = helper.make_graph(
        nodes,
        path.stem,
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(
        graph, ir_version=8, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="ringfence"
    )
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))
    print(f"{path.relative_to(HERE)}: {path.stat().st_size} bytes")


def colours(path):
    """Softmax over the distances from the mean colour to seven others.

    -|x - p|^2 = 2 x.p - |p|^2 - |x|^2, and softmax does not see the last term.
    """
    prototypes = np.array(
        [(1, 0, 0), (1, 1, 0), (0, 0.7, 0), (0, 0, 1), (0, 0, 0), (0.5, 0.5, 0.5), (1, 1, 1)],
        np.float32,
    )
    sharpness = 12
    save(
        path,
        [
            helper.make_node("ReduceMean", ["image"], ["mean"], axes=[1, 2], keepdims=0),
            helper.make_node("Gemm", ["mean", "weights", "bias"], ["logits"], transB=1),
            helper.make_node("Softmax", ["logits"], ["scores"], axis=1),
        ],
        [("image", ["batch", 16, 16, 3])],
        [("scores", ["batch", len(prototypes)])],
        {
            "weights": 2 * sharpness * prototypes,
            "bias": -sharpness * (prototypes**2).sum(axis=1),
        },
    )


def parts(path):
    """The brightest and the darkest of overlapping squares.

    64 x 64 pixels, squares of 16, one every 4; luma as BT.601 weighs it.
    """
    side, square, step = 64, 16, 4
    count = (side - square) // step + 1
    corners = np.array([(row, column) for row in range(count) for column in range(count)])
    top_left = corners * step / side
    edges = np.concatenate([top_left, top_left + square / side], axis=1).astype(np.float32)
    save(
        path,
        [
            helper.make_node("MatMul", ["image", "luma"], ["grey"]),
            helper.make_node("Transpose", ["grey"], ["plane"], perm=[0, 3, 1, 2]),
            helper.make_node(
                "AveragePool", ["plane"], ["means"], kernel_shape=[square] * 2, strides=[step] * 2
            ),
            helper.make_node("Flatten", ["means"], ["flat"]),
            helper.make_node("ArgMax", ["flat"], ["brightest"], axis=1, keepdims=0),
            helper.make_node("ArgMin", ["flat"], ["darkest"], axis=1, keepdims=0),
            helper.make_node("Concat", ["brightest", "darkest"], ["places"], axis=0),
            helper.make_node("Gather", ["edges", "places"], ["boxes"], axis=0),
            helper.make_node("ReduceMax", ["flat"], ["most"], axes=[1], keepdims=0),
            helper.make_node("ReduceMin", ["flat"], ["least"], axes=[1], keepdims=0),
            helper.make_node("Sub", ["one", "least"], ["darkness"]),
            helper.make_node("Concat", ["most", "darkness"], ["scores"], axis=0),
        ],
        [("image", [1, side, side, 3])],
        [("boxes", [2, 4]), ("scores", [2])],
        {
            "luma": np.array([[0.299], [0.587], [0.114]], np.float32),
            "edges": edges,
            "one": np.array([1], np.float32),
        },
    )


def project(path):
    """A random projection keeps angles nearly as they are; then length 1."""
    buckets, dimensions = 512, 64
    weights = np.random.default_rng(0).standard_normal((buckets, dimensions), np.float32)
    save(
        path,
        [
            helper.make_node("MatMul", ["counts", "weights"], ["projected"]),
            helper.make_node("ReduceL2", ["projected"], ["length"], axes=[1], keepdims=1),
            helper.make_node("Max", ["length", "tiny"], ["divisor"]),
            helper.make_node("Div", ["projected", "divisor"], ["vector"]),
        ],
        [("counts", ["batch", buckets])],
        [("vector", ["batch", dimensions])],
        {"weights": weights, "tiny": np.array(1e-6, np.float32)},
    )


def picture(path, background, shapes, size=(96, 64)):
    image = Image.new("RGB", size, background)
    draw = ImageDraw.Draw(image)
    for box, colour in shapes:
        draw.ellipse(box, fill=colour)
    image.save(path, optimize=True)


def melody(path, hertz, rate=8000):
    frames = b"".join(
        struct.pack("<h", round(12000 * math.sin(2 * math.pi * pitch * n / rate)))
        for pitch in hertz
        for n in range(rate // 4)
    )
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(frames)


colours(HERE / "visual-classifier/1/colours.onnx")
parts(HERE / "visual-detector/1/parts.onnx")
project(HERE / "text-embedder/1/project.onnx")
picture(HERE / "visual-classifier/example.png", (20, 60, 220), [((60, 8, 84, 32), (250, 240, 80))])
scene = [((12, 10, 36, 34), (255, 250, 220)), ((60, 36, 84, 60), (15, 15, 25))]
# As large as one of the detector's squares, and where one of them is.
parts_scene = [((32, 48, 95, 111), (255, 250, 220)), ((160, 144, 223, 207), (15, 15, 25))]
picture(HERE / "visual-detector/example.png", (120, 130, 120), parts_scene, size=(256, 256))
picture(HERE / "any-to-any/example.png", (120, 130, 120), scene)
melody(HERE / "audio-to-text/example.wav", [261.63, 329.63, 392.0, 523.25])
