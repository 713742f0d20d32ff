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

    def ints(self, high, *shape):
        return torch.from_numpy(self.rng.integers(0, high, shape, dtype=np.int64))


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
