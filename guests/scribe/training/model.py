"""scribe's network, in jax: a byte-level transformer with rotary positions.

Rotary positions depend on distances only, so the guest may drop the oldest rows of the cache and go on: a text can be
longer than the context. The cache holds keys after their rotation, as the exported graph does.
"""
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True)
class Config:
    layers: int = 4
    hidden: int = 128
    heads: int = 4
    vocab: int = 256  # Every byte, so that no prompt is refused for its letters.
    context: int = 512
    rotary_base: float = 2000.0
    epsilon: float = 1e-5

    @property
    def head(self):
        return self.hidden // self.heads

    def frequencies(self):
        half = self.head // 2
        return (self.rotary_base ** (-np.arange(half) / half)).astype(np.float32)


CONFIG = Config()


def initial(config, seed):
    """Fresh parameters. What writes into the residual stream starts at zero: each layer begins as the identity."""
    r = np.random.default_rng(seed)
    n, d, v = config.layers, config.hidden, config.vocab

    def normal(shape, deviation):
        return jnp.asarray(r.standard_normal(shape) * deviation, jnp.float32)

    return {
        "embed": normal((v, d), 0.5),
        "qkv": normal((n, 3, d, d), d**-0.5),
        "out": jnp.zeros((n, d, d)),
        "up": normal((n, d, 4 * d), d**-0.5),
        "down": jnp.zeros((n, 4 * d, d)),
        "norm_attention": jnp.ones((n, d)),
        "norm_mlp": jnp.ones((n, d)),
        "norm_final": jnp.ones(d),
        "unembed": jnp.zeros((d, v)),
    }


def norm(x, gain, epsilon):
    x = x - x.mean(-1, keepdims=True)
    return x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + epsilon) * gain


def rotate(x, cos, sin):
    a, b = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def logits(params, config, ids):
    """Scores of the next byte after every position. `ids`: [batch, length]; answers [batch, length, vocab]."""
    batch, length = ids.shape
    angle = jnp.arange(length)[:, None] * config.frequencies()
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    mask = jnp.where(np.tri(length, dtype=bool), 0.0, -1e9)
    # One row a byte: products of two plain matrices are what jax does fastest on a CPU, backwards too.
    x = params["embed"][ids.reshape(-1)]
    for i in range(config.layers):
        h = norm(x, params["norm_attention"][i], config.epsilon)
        q, k, v = [
            (h @ params["qkv"][i, j]).reshape(batch, length, config.heads, config.head).transpose(0, 2, 1, 3)
            for j in range(3)
        ]
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        weight = jax.nn.softmax(q @ k.transpose(0, 1, 3, 2) * config.head**-0.5 + mask)
        mixed = (weight @ v).transpose(0, 2, 1, 3).reshape(batch * length, config.hidden)
        x = x + mixed @ params["out"][i]
        h = norm(x, params["norm_mlp"][i], config.epsilon)
        x = x + jnp.square(jax.nn.relu(h @ params["up"][i])) @ params["down"][i]
    scores = norm(x, params["norm_final"], config.epsilon) @ params["unembed"]
    return scores.reshape(batch, length, config.vocab)


def loss(params, config, ids):
    """Mean cross-entropy in nats of the bytes after the first. `ids`: [batch, length + 1]."""
    scores = jax.nn.log_softmax(logits(params, config, ids[:, :-1]))
    return -jnp.take_along_axis(scores, ids[:, 1:, None], -1).mean()
