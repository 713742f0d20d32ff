"""measures.safetensors: distances of two sets of features, by numpy and scipy in float64."""
import numpy as np
from scipy.linalg import sqrtm
from scipy.spatial.distance import cdist, pdist

from fixture import finish

rng = np.random.default_rng(5)
D, N, M = 12, 90, 70
mix = rng.standard_normal((D, D)) / np.sqrt(D)
a = rng.standard_normal((N, D)) @ mix
b = (0.8 * rng.standard_normal((M, D)) + 0.3) @ mix + 0.1 * rng.standard_normal((M, D))
few = a[:8] + 0.05  # of rank 7
logits = 2.5 * rng.standard_normal((40, 6))
probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


def frechet(x, y):
    s, t = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = np.real(np.trace(sqrtm(s @ t)))
    return ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(s) + np.trace(t) - 2 * root


def frechet_by_values(x, y):
    """The same where the product is singular and sqrtm fails: by its eigenvalues."""
    s, t = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    values = np.linalg.eigvals(s @ t)
    assert abs(values.imag).max() < 1e-9
    root = np.sqrt(np.clip(values.real, 0, None)).sum()
    return ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(s) + np.trace(t) - 2 * root


def mmd2(x, y):
    k = lambda u, v: (u @ v.T / D + 1) ** 3
    m = len(x)
    inner = lambda u: (k(u, u).sum() - np.trace(k(u, u))) / (m * (m - 1))
    return inner(x) + inner(y) - 2 * k(x, y).mean()


def manifold(data, samples, k):
    radius = lambda x: np.sort(cdist(x, x), axis=1)[:, k]  # place 0 is the point itself
    across = cdist(data, samples)
    in_data = across <= radius(data)[:, None]
    in_samples = across <= radius(samples)[None, :]
    return [in_data.any(0).mean(), in_samples.any(1).mean(), in_data.sum(0).mean() / k, in_data.any(1).mean()]


def score(p, splits):
    parts = np.array_split(p, splits)
    each = [np.exp((q * (np.log(q) - np.log(q.mean(0)))).sum(1).mean()) for q in parts]
    return [np.mean(each), np.std(each, ddof=1) if splits > 1 else 0.0]


assert abs(frechet(a, b) - frechet_by_values(a, b)) < 1e-9
shares = np.bincount(probabilities.argmax(1), minlength=6) / len(probabilities)
present = shares[shares > 0]
finish("measures", {
    "a": a, "b": b, "few": few, "probabilities": probabilities,
    "frechet": np.array([frechet(a, b), frechet_by_values(a, few), frechet_by_values(few, b)]),
    "kernel": np.array([mmd2(a[:M], b)]),
    "manifold": np.array([manifold(a, b, 3), manifold(a, b, 5)]),
    "score": np.array([score(probabilities, 1), score(probabilities, 4)]),
    "effective": np.array([np.exp(-(present * np.log(present)).sum())]),
    "nearest": np.stack([cdist(b, a).argmin(1).astype(float), cdist(b, a).min(1)]),
    "mean_distance": np.array([pdist(a).mean()]),
}, {"dims": D})
print("frechet", frechet(a, b), "kernel", mmd2(a[:M], b), "manifold", manifold(a, b, 5), score(probabilities, 4))
