"""Trains scribe and leaves a checkpoint; run again with the same arguments, it goes on from there.

    python train.py TEXT --checkpoint scribe.npz

TEXT is what `text.novels` takes. Batches depend on the seed and the step alone, so that a run that was interrupted
sees the same text as one that was not.
"""
import argparse
import functools
import os
import time

import jax
import jax.numpy as jnp
import numpy as np

import model
import text

HELD_OUT = 200_000  # The last bytes of the last novel are never trained on.
SEED = 20261123
MATRICES = ("qkv", "out", "up", "down")


def orthogonal(g):
    """Newton-Schulz iteration towards the nearest orthogonal matrix (Jordan et al. 2024, "Muon": the coefficients are
    theirs), over the last two axes."""
    tall = g.shape[-2] > g.shape[-1]
    x = g.swapaxes(-1, -2) if tall else g
    x = x / (jnp.linalg.norm(x, axis=(-2, -1), keepdims=True) + 1e-7)
    for _ in range(5):
        a = x @ x.swapaxes(-1, -2)
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.swapaxes(-1, -2) if tall else x


@functools.partial(jax.jit, donate_argnums=(0, 1))
def step(params, state, ids, rate, t):
    """One update: Muon for the matrices inside the layers, Adam for embeddings and gains."""
    value, grads = jax.value_and_grad(model.loss)(params, model.CONFIG, ids)
    first, second = {}, {}
    fresh = {}
    for name, p in params.items():
        g, m, v = grads[name], state["first"][name], state["second"][name]
        if name in MATRICES:
            m = 0.95 * m + g
            update = orthogonal(g + 0.95 * m) * max(1.0, p.shape[-1] / p.shape[-2]) ** 0.5
            fresh[name] = p * (1 - 1e-4 * rate) - 0.012 * rate * update
        else:
            m = 0.9 * m + 0.1 * g
            v = 0.99 * v + 0.01 * g * g
            update = (m / (1 - 0.9**t)) / (jnp.sqrt(v / (1 - 0.99**t)) + 1e-8)
            speed = {"embed": 0.01, "unembed": 0.003}.get(name, 0.005)
            fresh[name] = p - speed * rate * update
        first[name], second[name] = m, v
    return fresh, {"first": first, "second": second}, value


def save(path, params, state, done):
    arrays = {f"{group}.{name}": np.asarray(array)
              for group, tree in (("params", params), ("first", state["first"]), ("second", state["second"]))
              for name, array in tree.items()}
    # A run that is stopped while it writes keeps the checkpoint before.
    np.savez(path + ".part.npz", done=done, **arrays)
    os.replace(path + ".part.npz", path)


def restore(path):
    arrays = np.load(path)
    trees = {"params": {}, "first": {}, "second": {}}
    for key in arrays.files:
        group, _, name = key.partition(".")
        if name:
            trees[group][name] = jnp.asarray(arrays[key])
    return trees["params"], {"first": trees["first"], "second": trees["second"]}, int(arrays["done"])


def schedule(done, steps):
    """The share of the full learning rate: a short warm-up, then straight down to zero."""
    return min((done + 1) / 40, 1 - done / steps)


def window(done, steps):
    """How many bytes are read at a time. Short windows are cheaper and teach most of the language; the last ones show
    the model distances as long as its context."""
    if done < 0.55 * steps:
        return model.CONFIG.context // 4
    return model.CONFIG.context // 2 if done < 0.85 * steps else model.CONFIG.context


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("text")
    arguments.add_argument("--checkpoint", default="scribe.npz")
    arguments.add_argument("--steps", type=int, default=1800)
    arguments.add_argument("--batch", type=int, default=4096, help="bytes per step")
    options = arguments.parse_args()

    data = np.frombuffer(text.novels(options.text), np.uint8)[:-HELD_OUT].astype(np.int32)
    params = model.initial(model.CONFIG, SEED)
    state = {"first": jax.tree.map(jnp.zeros_like, params), "second": jax.tree.map(jnp.zeros_like, params)}
    done = 0
    if os.path.exists(options.checkpoint):
        params, state, done = restore(options.checkpoint)
    print(f"{sum(p.size for p in params.values())} parameters, {len(data)} bytes to learn from, {done} steps done")

    started, recent = time.monotonic(), []
    while done < options.steps:
        length = window(done, options.steps)
        at = np.random.default_rng([SEED, done]).integers(0, len(data) - length - 1, options.batch // length)
        ids = data[at[:, None] + np.arange(length + 1)]
        params, state, value = step(params, state, ids, schedule(done, options.steps), done + 1.0)
        recent.append(float(value))
        done += 1
        if done % 50 == 0 or done == options.steps:
            bits = np.mean(recent) / np.log(2)
            print(f"step {done}: {bits:.3f} bits per byte, {time.monotonic() - started:.0f} s", flush=True)
            recent = []
            save(options.checkpoint, params, state, done)
    print("trained")


if __name__ == "__main__":
    main()
