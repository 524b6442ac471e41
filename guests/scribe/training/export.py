"""Writes `1/scribe.onnx` from a checkpoint, checks it against jax through onnxruntime, and prints bits per byte on the
held-out text beside those of n-gram models of the same text.

    python export.py TEXT --checkpoint scribe.npz
"""
import argparse
import hashlib
import pathlib
import time

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

import model
import ngram
import text
import train

PATH = pathlib.Path(__file__).resolve().parent.parent / "1" / "scribe.onnx"


class Graph:
    """Nodes and constants, named in the order of their making."""

    def __init__(self):
        self.nodes, self.constants = [], []

    def constant(self, array, name=None):
        name = name or f"constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def op(self, kind, *inputs, out=None, outputs=1, **attributes):
        names = [out] if out else [f"{kind.lower()}{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, **attributes))
        return names[0] if len(names) == 1 else names


def built(params, config):
    """The graph of one pass: `S` new bytes after `P` cached ones; `T` = `P` + `S`. A cache's row is a key (already
    rotated) or a value; `attention_bias` is 0 where a byte may look and very negative elsewhere."""
    g, d, heads, head = Graph(), config.hidden, config.heads, config.head
    value = helper.make_tensor_value_info
    inputs = [
        value("input_ids", TensorProto.INT64, ["B", "S"]),
        value("position_ids", TensorProto.INT64, ["B", "S"]),
        value("attention_bias", TensorProto.FLOAT, ["B", 1, "S", "T"]),
    ]
    outputs = [value("logits", TensorProto.FLOAT, ["B", "S", config.vocab])]

    split_heads = g.constant(np.array([0, 0, heads, head]))
    join_heads = g.constant(np.array([0, 0, d]))
    zeros = g.constant(np.zeros(d, np.float32))
    position = g.op("Unsqueeze", g.op("Cast", "position_ids", to=TensorProto.FLOAT), g.constant(np.array([1, 3])))
    angle = g.op("Mul", position, g.constant(config.frequencies()))
    cos, sin = g.op("Cos", angle), g.op("Sin", angle)

    def norm(x, gain):
        return g.op("LayerNormalization", x, g.constant(gain), zeros, axis=-1, epsilon=config.epsilon)

    def linear(x, weight):
        return g.op("MatMul", x, g.constant(weight))

    def rotate(x):
        a, b = g.op("Split", x, outputs=2, axis=-1)
        first = g.op("Sub", g.op("Mul", a, cos), g.op("Mul", b, sin))
        second = g.op("Add", g.op("Mul", b, cos), g.op("Mul", a, sin))
        return g.op("Concat", first, second, axis=-1)

    x = g.op("Gather", g.constant(params["embed"], "embed"), "input_ids")
    for i in range(config.layers):
        inputs += [value(f"past_{n}{i}", TensorProto.FLOAT, ["B", heads, "P", head]) for n in "kv"]
        outputs += [value(f"present_{n}{i}", TensorProto.FLOAT, ["B", heads, "T", head]) for n in "kv"]
        # One product for queries, keys and values; the scale of attention is folded into the queries.
        q, k, v = params["qkv"][i]
        qkv = linear(norm(x, params["norm_attention"][i]), np.concatenate([q * head**-0.5, k, v], 1).astype(np.float32))
        q, k, v = [
            g.op("Transpose", g.op("Reshape", part, split_heads), perm=[0, 2, 1, 3])
            for part in g.op("Split", qkv, outputs=3, axis=-1)
        ]
        k = g.op("Concat", f"past_k{i}", rotate(k), axis=2, out=f"present_k{i}")
        v = g.op("Concat", f"past_v{i}", v, axis=2, out=f"present_v{i}")
        # Turned round so that the few new queries are transposed, not all the cached keys.
        scores = g.op("MatMul", k, g.op("Transpose", rotate(q), perm=[0, 1, 3, 2]))
        scores = g.op("Transpose", scores, perm=[0, 1, 3, 2])
        weight = g.op("Softmax", g.op("Add", scores, "attention_bias"), axis=-1)
        mixed = g.op("Reshape", g.op("Transpose", g.op("MatMul", weight, v), perm=[0, 2, 1, 3]), join_heads)
        x = g.op("Add", x, linear(mixed, params["out"][i]))
        h = g.op("Relu", linear(norm(x, params["norm_mlp"][i]), params["up"][i]))
        x = g.op("Add", x, linear(g.op("Mul", h, h), params["down"][i]))
    g.op("MatMul", norm(x, params["norm_final"]), g.constant(params["unembed"], "unembed"), out="logits")

    graph = helper.make_graph(g.nodes, "scribe", inputs, outputs, g.constants)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], producer_name="ringfence-scribe")
    made.ir_version = 8
    onnx.checker.check_model(made, full_check=True)
    return made.SerializeToString(deterministic=True)


class Session:
    """The exported graph with its cache, as the guest drives it."""

    def __init__(self, path, config):
        self.config = config
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.outputs = [o.name for o in self.session.get_outputs()]

    def run(self, ids, position, past):
        """Scores and the grown cache for `ids` [batch, S], the first of which stands at `position`."""
        batch, length = ids.shape
        config = self.config
        if past is None:
            empty = np.zeros((batch, config.heads, 0, config.head), np.float32)
            past = {f"past_{n}{i}": empty for i in range(config.layers) for n in "kv"}
        cached = past["past_k0"].shape[2]
        bias = np.where(np.tri(length, cached + length, cached, dtype=bool), 0, -1e9).astype(np.float32)
        positions = position + np.arange(length)
        feeds = past | {
            "input_ids": ids.astype(np.int64),
            "position_ids": np.broadcast_to(positions, (batch, length)).astype(np.int64),
            "attention_bias": np.broadcast_to(bias, (batch, 1, *bias.shape)),
        }
        results = dict(zip(self.outputs, self.session.run(None, feeds)))
        scores = results.pop("logits")
        return scores, {name.replace("present", "past"): array for name, array in results.items()}


def check(session, params, config, ids):
    """The exported graph agrees with jax, in one pass, byte by byte with the cache, and wherever positions begin."""
    expected = np.asarray(model.logits(params, config, ids[None]))[0]
    whole, _ = session.run(ids[None], 0, None)
    pieces, past = session.run(ids[None, :40], 100_000, None)
    pieces = [pieces[0]]
    for i in range(40, len(ids)):
        scores, past = session.run(ids[None, i : i + 1], 100_000 + i, past)
        pieces.append(scores[0])
    far = np.abs(np.concatenate(pieces) - expected).max()
    near = np.abs(whole[0] - expected).max()
    print(f"largest difference from jax: {near:.1e} in one pass, {far:.1e} with the cache and far positions")
    assert near < 1e-3 and far < 5e-2


def bits_per_byte(session, config, data, skip, batch=8):
    """Mean bits of the bytes of `data` after the first `skip`. Each is predicted from at least half a context of bytes
    before it (all there are, near the start) and at most a whole one."""
    half = config.context // 2
    assert skip >= half
    total, count, starts = 0.0, 0, list(range(skip - half, len(data) - half - 1, half))
    for at in range(0, len(starts), batch):
        rows = [data[s : s + config.context + 1] for s in starts[at : at + batch]]
        length = max(map(len, rows))
        ids = np.stack([np.pad(row, (0, length - len(row))) for row in rows])
        scores, _ = session.run(ids[:, :-1], 0, None)
        for row, score in zip(rows, scores.astype(np.float64)):
            # The first half was predicted by the window before this one.
            score, target = score[half - 1 : len(row) - 1], row[half:]
            if len(row) > config.context:
                score, target = score[:half], target[:half]
            score = score - score.max(-1, keepdims=True)
            nats = np.log(np.exp(score).sum(-1)) - score[np.arange(len(target)), target]
            total, count = total + nats.sum(), count + len(target)
    assert count == len(data) - skip
    return total / np.log(2) / count


def continuation(session, prompt, length, temperature, seed):
    r, out = np.random.default_rng(seed), bytearray()
    scores, past = session.run(np.frombuffer(prompt, np.uint8)[None], 0, None)
    for i in range(length):
        p = np.exp((scores[0, -1] - scores[0, -1].max()) / temperature)
        out.append(r.choice(len(p), p=p / p.sum()))
        scores, past = session.run(np.array([[out[-1]]]), len(prompt) + i, past)
    return prompt + bytes(out)


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("text")
    arguments.add_argument("--checkpoint", default="scribe.npz")
    options = arguments.parse_args()

    params, _, done = train.restore(options.checkpoint)
    params = {name: np.asarray(array) for name, array in params.items()}
    data = built(params, model.CONFIG)
    PATH.write_bytes(data)
    print(f"{PATH.name}: {len(data)} bytes after {done} steps, sha256 {hashlib.sha256(data).hexdigest()}")

    whole = np.frombuffer(text.novels(options.text), np.uint8)
    learnt = whole[: -train.HELD_OUT]
    session = Session(PATH, model.CONFIG)
    check(session, params, model.CONFIG, whole[-train.HELD_OUT :][:200])

    context = model.CONFIG.context
    held = whole[-train.HELD_OUT - context :]
    started = time.monotonic()
    print(f"held out: the last {train.HELD_OUT} bytes")
    print(f"scribe: {bits_per_byte(session, model.CONFIG, held, context):.3f} bits per byte "
          f"({time.monotonic() - started:.0f} s)")  # fmt: skip
    for order in (2, 3):
        yardstick = ngram.tuned(learnt, order)
        discounts = ", ".join(f"{d:.2f}" for d in yardstick.discounts)
        print(f"n-grams of {order + 1} bytes ({order} of context): {yardstick.bits(held, context):.3f} bits per byte "
              f"(Kneser-Ney, discounts {discounts})")  # fmt: skip
    print(continuation(session, b"It was a fine morning, and Emma", 400, 0.7, 1).decode("utf-8", "replace"))


if __name__ == "__main__":
    main()
