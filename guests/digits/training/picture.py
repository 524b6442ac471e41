"""What the guest does to a picture before its network sees it, in NumPy: `src/picture.rs` is the same arithmetic."""
import io

import numpy as np
from PIL import Image

SIDE = 8
# A picture whose lightest and darkest cells differ by less than this shows nothing.
CONTRAST_MIN = 0.03


def _shares(pixels):
    """How much of each cell every pixel covers: [SIDE, pixels], each row summing to 1."""
    edges = np.arange(pixels + 1)
    low = np.maximum(edges[:-1], np.arange(SIDE)[:, None] * pixels / SIDE)
    high = np.minimum(edges[1:], np.arange(1, SIDE + 1)[:, None] * pixels / SIDE)
    return np.maximum(high - low, 0) * SIDE / pixels


def cells(pixels):
    """`pixels`: [height, width, 1 to 4] of 0 to 1 (grey, grey and alpha, RGB, RGBA). Answers the network's input,
    [SIDE, SIDE]: light ink on a dark ground, from 0 to 1; or None where there is nothing to see."""
    channels = pixels.shape[2]
    luma = pixels[..., :3] @ [0.299, 0.587, 0.114] if channels >= 3 else pixels[..., 0]
    alpha = pixels[..., -1] if channels in (2, 4) else np.ones_like(luma)
    rows, columns = _shares(pixels.shape[0]), _shares(pixels.shape[1])
    ink, cover = rows @ (luma * alpha) @ columns.T, rows @ alpha @ columns.T
    # Transparent parts take the ground that the opaque parts stand out against.
    ground = 0.0 if ink.sum() > 0.5 * cover.sum() else 1.0
    grid = ink + (1 - cover) * ground
    inner = grid[1:-1, 1:-1]
    border = (grid.sum() - inner.sum()) / (SIDE * SIDE - inner.size)
    if border > inner.mean():
        grid = 1 - grid
    grid = grid - grid.min()
    return None if grid.max() < CONTRAST_MIN else (grid / grid.max()).astype(np.float32)


def read(data):
    """An encoded picture, as `cells` takes it."""
    picture = Image.open(io.BytesIO(data))
    if picture.mode.startswith("I"):
        # Of 16 bits the guest's decoder keeps the upper 8.
        return (np.asarray(picture) >> 8).astype(float)[..., None] / 255
    pixels = np.asarray(picture).astype(float) / 255
    return pixels[..., None] if pixels.ndim == 2 else pixels
