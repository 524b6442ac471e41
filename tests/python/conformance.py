"""Makes the fixtures of the conformance test: what ONNX Runtime computes.

    python3 tests/python/conformance.py SHARED_MODELS

needs onnxruntime 1.32.0, onnx and numpy. Writes `grouped.onnx`, a decoder of operators of
`com.microsoft`, and `reference.json`: for each graph the inputs, by how they are filled, and
some of the elements of each output.
"""

import json
import pathlib
import sys

import numpy
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

FIXTURES = pathlib.Path(__file__).parent.parent / "fixtures" / "conformance"
GUESTS = pathlib.Path(__file__).parent.parent.parent / "guests"
SAMPLES = 64


def hashed(shape, seed):
    """Numbers from -0.5 to 0.5 that look random, and that any language makes alike."""
    count = int(numpy.prod(shape))
    index = (numpy.arange(count, dtype=numpy.uint64) + numpy.uint64(seed)) * numpy.uint64(2654435761)
    words = (index & numpy.uint64(0xFFFFFFFF)).astype(numpy.float64)
    return (words / 2.0**32 - 0.5).astype(numpy.float32).reshape(shape)


def fill(spec):
    shape, (how, *more) = spec["shape"], spec["fill"].split(":")
    if how == "hash":
        return hashed(shape, int(more[0]))
    if how == "ids":
        count = int(numpy.prod(shape))
        return ((numpy.arange(count) * 7 + 3) % int(more[0])).astype(numpy.int64).reshape(shape)
    if how == "from":
        count = int(numpy.prod(shape))
        return (numpy.arange(count) + int(more[0])).astype(numpy.int64).reshape(shape)
    if how == "i32":
        return numpy.full(shape, int(more[0]), dtype=numpy.int32)
    if how == "causal":
        rows, columns = shape[-2], shape[-1]
        seen = numpy.arange(columns)[None, :] <= numpy.arange(rows)[:, None] + columns - rows
        return numpy.where(seen, 0.0, -1e9).astype(numpy.float32).reshape(shape)
    raise ValueError(spec)


def cache(width, past):
    names = [f"past_{what}{layer}" for layer in range(4) for what in "kv"]
    return [
        {"name": name, "shape": [1, 4, past, width], "fill": f"hash:{number * 1000}"}
        for number, name in enumerate(names)
    ]


def decoder(vocabulary, width, length, past):
    return [
        {"name": "input_ids", "shape": [1, length], "fill": f"ids:{vocabulary}"},
        {"name": "position_ids", "shape": [1, length], "fill": f"from:{past}"},
        {"name": "attention_bias", "shape": [1, 1, length, length + past], "fill": "causal"},
        *cache(width, past),
    ]


def grouped():
    """One layer of a decoder, a token at a time: norm, grouped attention, norm, product."""
    hidden, heads, groups, head, vocabulary, context = 64, 4, 2, 16, 32, 32
    weights = {}

    def weight(name, *shape):
        weights[name] = (hashed(shape, len(weights) * 7919) * 0.4).astype(numpy.float32)
        return name

    places = numpy.arange(context)[:, None] / 10000.0 ** (numpy.arange(head // 2)[None, :] * 2 / head)
    weights["cos"], weights["sin"] = (
        numpy.cos(places).astype(numpy.float32),
        numpy.sin(places).astype(numpy.float32),
    )
    node = helper.make_node
    microsoft = {"domain": "com.microsoft"}
    nodes = [
        node("Gather", [weight("embedding", vocabulary, hidden), "ids"], ["x"]),
        node("SimplifiedLayerNormalization", ["x", weight("norm1", hidden)], ["n"], axis=-1, epsilon=1e-6),
        node("MatMul", ["n", weight("wq", hidden, heads * head)], ["q"]),
        node("MatMul", ["n", weight("wk", hidden, groups * head)], ["k"]),
        node("MatMul", ["n", weight("wv", hidden, groups * head)], ["v"]),
        node(
            "GroupQueryAttention",
            ["q", "k", "v", "past_k", "past_v", "seen", "total", "cos", "sin"],
            ["a", "present_k", "present_v"],
            num_heads=heads,
            kv_num_heads=groups,
            do_rotary=1,
            **microsoft,
        ),
        node("MatMul", ["a", weight("wo", heads * head, hidden)], ["o"]),
        node(
            "SkipSimplifiedLayerNormalization",
            ["o", "x", weight("norm2", hidden)],
            ["s"],
            epsilon=1e-6,
            **microsoft,
        ),
        node("QuickGelu", ["s"], ["g"], alpha=1.702, **microsoft),
        node("MatMul", ["g", weight("head", hidden, vocabulary)], ["logits"]),
    ]
    value = helper.make_tensor_value_info
    rows = ["B", groups, "P", head], ["B", groups, "T", head]
    graph = helper.make_graph(
        nodes,
        "grouped",
        [
            value("ids", TensorProto.INT64, ["B", 1]),
            value("past_k", TensorProto.FLOAT, rows[0]),
            value("past_v", TensorProto.FLOAT, rows[0]),
            value("seen", TensorProto.INT32, ["B"]),
            value("total", TensorProto.INT32, []),
        ],
        [
            value("logits", TensorProto.FLOAT, ["B", 1, vocabulary]),
            value("present_k", TensorProto.FLOAT, rows[1]),
            value("present_v", TensorProto.FLOAT, rows[1]),
        ],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    onnx.save(model, FIXTURES / "grouped.onnx")


def main():
    shared = pathlib.Path(sys.argv[1])
    FIXTURES.mkdir(exist_ok=True)
    grouped()
    graphs = [
        ("shared/mlp.onnx", shared / "mlp.onnx", [{"name": "input", "shape": [3, 784], "fill": "hash:1"}]),
        ("shared/conv.onnx", shared / "conv.onnx", [{"name": "input", "shape": [1, 3, 224, 224], "fill": "hash:2"}]),
        ("shared/decoder.onnx", shared / "decoder.onnx", decoder(512, 64, 5, 3)),
        ("guests/digits", GUESTS / "digits/1/digits.onnx", [{"name": "image", "shape": [2, 1, 8, 8], "fill": "hash:3"}]),
        ("guests/scribe", GUESTS / "scribe/1/scribe.onnx", decoder(256, 32, 4, 6)),
        (
            "grouped",
            FIXTURES / "grouped.onnx",
            [
                {"name": "ids", "shape": [1, 1], "fill": "ids:32"},
                {"name": "past_k", "shape": [1, 2, 3, 16], "fill": "hash:4"},
                {"name": "past_v", "shape": [1, 2, 3, 16], "fill": "hash:5"},
                {"name": "seen", "shape": [1], "fill": "i32:3"},
                {"name": "total", "shape": [], "fill": "i32:4"},
            ],
        ),
    ]
    reference = []
    for name, path, inputs in graphs:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        made = session.run(None, {spec["name"]: fill(spec) for spec in inputs})
        outputs = []
        for output, value in zip(session.get_outputs(), made):
            flat = value.reshape(-1)
            step = max(1, len(flat) // SAMPLES)
            told = [float(number) for number in flat[::step][:SAMPLES]]
            outputs.append({"name": output.name, "shape": list(value.shape), "step": step, "values": told})
        reference.append({"graph": name, "inputs": inputs, "outputs": outputs})
    text = json.dumps({"onnxruntime": onnxruntime.__version__, "graphs": reference})
    (FIXTURES / "reference.json").write_text(text + "\n")


main()
