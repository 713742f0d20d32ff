"""Write a fixture file, or (--check) compare a fresh computation with the committed file."""
import json
import os
import sys

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import save_file

FIXTURES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "fixtures")


class Source:
    """Random float64 tensors whose values are exact in float32, so that an f32 engine starts from the same numbers."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)

    def normal(self, *shape, std=1.0, mean=0.0):
        values = np.asarray(mean + std * self.rng.standard_normal(shape))
        return torch.from_numpy(values.astype(np.float32).astype(np.float64))

    def uniform(self, *shape):
        return torch.from_numpy(self.rng.random(shape).astype(np.float32).astype(np.float64))

    def ints(self, high, *shape):
        return torch.from_numpy(self.rng.integers(0, high, shape, dtype=np.int64))


def philox(key, counter):
    """Philox 4x32-10 of counters (4, n) under one key of two numbers: (4, n), all below 2^32."""
    c, key, low = [np.asarray(x, np.uint64) for x in counter], [np.uint64(k) for k in key], np.uint64(0xFFFFFFFF)
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        c = [(p1 >> np.uint64(32)) ^ c[1] ^ key[0], p1 & low, (p0 >> np.uint64(32)) ^ c[3] ^ key[1], p0 & low]
        key = [(k + np.uint64(w)) & low for k, w in zip(key, (0x9E3779B9, 0xBB67AE85))]
    return c


def noise(shape, seed=0, step=0, tensor=0, purpose=7):
    """The normal numbers that kiln draws: stream `tensor` of pass (seed, step), in float64."""
    n = int(np.prod(shape))
    blocks = np.arange((n + 3) // 4, dtype=np.uint64)
    full = lambda x: np.full_like(blocks, x)
    step <<= 16
    bits = philox((seed & 0xFFFFFFFF, seed >> 32), (blocks, full(purpose << 24 | tensor), full(step & 0xFFFFFFFF), full(step >> 32)))
    a, b = np.stack([bits[0], bits[2]], 1).ravel(), np.stack([bits[1], bits[3]], 1).ravel()
    radius = np.sqrt(-2 * np.log(1 - (a >> np.uint64(9)) / 2**23))
    part = (b >> np.uint64(7) & np.uint64(0x7FFFFF)) / 2**23 - 0.5
    angle = np.pi / 2 * ((b >> np.uint64(30)) + part)
    return torch.from_numpy(np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1).ravel()[:n].reshape(shape))


# PyTorch's (N, C, H, W) and (O, C, kh, kw) to kiln's (N, H, W, C) and (O, kh, kw, C).
to_kiln = lambda x: x.permute(0, 2, 3, 1).contiguous()


def finish(name, tensors, about):
    """Save `tensors` as fixtures/NAME.safetensors with `about` as JSON under the metadata key "fixture".

    With --check nothing is written: every tensor must equal the file's, integers exactly, floats to 1e-9 of the
    tensor's largest value (f32 tensors to 1e-6: they may be rounded from a slightly different float64).
    """
    path = os.path.join(FIXTURES, f"{name}.safetensors")
    arrays = {k: np.ascontiguousarray(v.detach().numpy() if torch.is_tensor(v) else v) for k, v in tensors.items()}
    # One metadata key only: safetensors writes several in no fixed order, and the file should be reproducible.
    meta = {"fixture": json.dumps(about, sort_keys=True)}
    if "--check" not in sys.argv:
        os.makedirs(FIXTURES, exist_ok=True)
        save_file(arrays, path, metadata=meta)
        os.chmod(path, 0o644)
        print(f"{name}.safetensors: {len(arrays)} tensors, {os.path.getsize(path) / 1024:.0f} KB")
        return
    with safe_open(path, framework="np") as f:
        assert f.metadata() == meta, f"{name}: metadata differs"
        assert set(f.keys()) == set(arrays), f"{name}: other tensors: {set(f.keys()) ^ set(arrays)}"
        for k, new in arrays.items():
            old = f.get_tensor(k)
            assert (old.dtype, old.shape) == (new.dtype, new.shape), f"{name}: {k}: {old.dtype}{old.shape}"
            tol = {"f": 1e-9, "i": 0.0, "u": 0.0}[new.dtype.kind] if new.dtype != np.float32 else 1e-6
            worst = np.abs(old.astype(float) - new).max() if old.size else 0
            assert worst <= tol * np.abs(old).max(), f"{name}: {k}: differs by {worst}"
    print(f"{name}.safetensors: {len(arrays)} tensors agree")
