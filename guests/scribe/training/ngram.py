"""The yardstick: an interpolated n-gram model over bytes with Kneser-Ney smoothing.

Its discounts are tuned on the end of the text to learn from, then its counts are taken over all of that text.
"""
import numpy as np


class Ngram:
    """Predicts a byte from the `order` bytes before it."""

    def __init__(self, data, order, discounts=None):
        self.order = order
        # Symbols are the bytes that occur; one more stands for all others together.
        self.symbols = np.full(256, len(set(data.tolist())), np.int64)
        self.symbols[np.unique(data)] = np.arange(len(np.unique(data)))
        self.size = k = len(np.unique(data)) + 1
        self.others = 256 - k + 1
        counts = np.bincount(self._codes(data, order), minlength=k ** (order + 1))
        self.levels = []  # (counts, their sum per context, how many distinct bytes follow), longest context first
        shape = (k,) * (order + 1)
        counts = counts.reshape(shape).astype(np.float32)
        while True:
            table = counts.reshape(-1, k)
            self.levels.append((table, table.sum(-1), (table > 0).sum(-1)))
            if counts.ndim == 1:
                break
            # Kneser-Ney: a shorter context counts in how many longer ones its continuation was seen.
            counts = (counts > 0).sum(0).astype(np.float32)
        self.discounts = discounts or [0.7] * (order + 1)

    def _codes(self, data, order):
        s = self.symbols[data]
        code = np.zeros(len(s) - order, np.int64)
        for i in range(order + 1):
            code = code * self.size + s[i : len(s) - order + i]
        return code

    def bits(self, data, skip):
        """Mean bits per byte of `data` after its first `skip` bytes, which serve as context."""
        s = self.symbols[data]
        p = np.full(len(data) - skip, 1 / 256)
        for n in range(self.order + 1):
            table, total, kinds = self.levels[self.order - n]
            context = np.zeros(len(data) - skip, np.int64)
            for i in range(n, 0, -1):
                context = context * self.size + s[skip - i : len(s) - i]
            discount = self.discounts[n]
            seen = total[context]
            kept = np.maximum(table[context, s[skip:]] - discount, 0)
            # A byte never seen takes its share of the symbol that stands for all such bytes.
            kept = np.where(s[skip:] == self.size - 1, kept / self.others, kept)
            with np.errstate(invalid="ignore", divide="ignore"):
                p = np.where(seen > 0, (kept + discount * kinds[context] * p) / seen, p)
        return float(-np.log2(p).mean())


def tuned(data, order, tune=200_000):
    """The model of `order` over all of `data`, its discounts chosen on the last `tune` bytes without having seen them."""
    model = Ngram(data[:-tune], order)
    held = data[-tune - order :]
    for _ in range(2):
        for n in range(order + 1):
            tried = {}
            for discount in np.arange(0.05, 1.0, 0.05):
                model.discounts[n] = float(discount)
                tried[float(discount)] = model.bits(held, order)
            model.discounts[n] = min(tried, key=tried.get)
    return Ngram(data, order, model.discounts)
