"""What ONNX Runtime takes for the benchmarks' graphs, on one thread, in Python.

    python bench_onnxruntime.py FOLDER TOKENS
"""

import pathlib
import statistics
import sys
import time

import numpy
import onnxruntime


def session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def median(work, seconds=2.0):
    work()
    times, started = [], time.perf_counter()
    while time.perf_counter() - started < seconds:
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1000


def main():
    folder, tokens = pathlib.Path(sys.argv[1]), int(sys.argv[2])
    conv = session(folder / "conv.onnx")
    picture = (numpy.arange(3 * 224 * 224, dtype=numpy.float32) * 1e-6).reshape(1, 3, 224, 224)
    print("onnxruntime in Python, one thread")
    print(f"  p50 {median(lambda: conv.run(None, {'input': picture})):9.3f}ms  conv")

    decoder = session(folder / "decoder.onnx")
    names = [output.name for output in decoder.get_outputs()]

    def decode():
        cache = {i.name: numpy.zeros((1, 4, 0, 64), numpy.float32) for i in decoder.get_inputs() if "past" in i.name}
        token = 1
        for position in range(tokens):
            inputs = {
                "input_ids": numpy.array([[token]]),
                "position_ids": numpy.array([[position]]),
                "attention_bias": numpy.zeros((1, 1, 1, position + 1), numpy.float32),
                **cache,
            }
            made = dict(zip(names, decoder.run(None, inputs)))
            token = int(made["logits"][0, -1].argmax())
            cache = {name.replace("present", "past"): value for name, value in made.items() if "present" in name}

    print(f"  p50 {median(decode):9.3f}ms  {tokens} tokens")


main()
