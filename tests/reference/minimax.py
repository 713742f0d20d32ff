"""Coefficients of the polynomials in src/cpu/math.rs.

Each polynomial minimises the largest weighted error over an interval (Lawson's algorithm: least squares whose weights
grow where the error is large). Its coefficients are then rounded to f32 one by one, lowest first, and after each rounding
the free ones are fitted again, so that they make up for it. A weight w(x) is chosen so that w(x) * (error of the
polynomial) is the relative error of the function; 2^-24 = 6.0e-8 is half a unit in the last place.

    python tests/reference/minimax.py        # needs numpy and mpmath; prints what stands in math.rs
"""

import mpmath as mp
import numpy as np

mp.mp.dps = 40
POINTS = 1500


def lawson(basis, target, weight, rounds=400):
    """Coefficients c that minimise max |weight * (basis @ c - target)|, and that maximum."""
    lam = np.full(len(target), 1.0 / len(target))
    best, best_error = None, np.inf
    scale = np.abs(basis).max(axis=0)
    for _ in range(rounds):
        root = np.sqrt(lam) * weight
        c = np.linalg.lstsq(basis / scale * root[:, None], target * root, rcond=None)[0] / scale
        error = np.abs(weight * (basis @ c - target))
        if error.max() < best_error:
            best, best_error = c, error.max()
        lam = lam * (error + 1e-3 * error.max())
        lam /= lam.sum()
    return best, best_error


def fit(name, f, w, lo, hi, count):
    """Fits `count` coefficients, lowest first, to f on [lo, hi] under the weight w."""
    lo, hi = mp.mpf(lo), mp.mpf(hi)
    nodes = [(lo + hi) / 2 - (hi - lo) / 2 * mp.cos(mp.pi * (i + 0.5) / POINTS) for i in range(POINTS)]
    x = np.array([float(v) for v in nodes])
    target = np.array([float(f(mp.mpf(v))) for v in x])
    weight = np.array([float(w(mp.mpf(v))) for v in x])
    basis = np.stack([x**i for i in range(count)], axis=1)
    done = []
    for i in range(count):
        rest = target - basis[:, :i] @ np.array(done, dtype=np.float64)
        c, ideal = lawson(basis[:, i:], rest, weight)
        if i == 0:
            before = ideal
        done.append(float(np.float32(c[0])))
    after = np.abs(weight * (basis @ np.array(done) - target)).max()
    print(f"// {name}: error {after:.2e} (before rounding {before:.2e})")
    print("[" + ", ".join(f"{np.float32(c)!r}".removeprefix("np.float32(").removesuffix(")") for c in done) + "]")


def split(name, value, bits):
    """A constant as a sum of two f32, the first of few bits, so that its products with small integers are exact."""
    value = mp.mpf(value)
    exponent = mp.floor(mp.log(value, 2))
    unit = mp.mpf(2) ** (exponent - bits + 1)
    high = mp.nint(value / unit) * unit
    print(f"// {name}: {mp.nstr(high, 20)} + {mp.nstr(mp.mpf(float(np.float32(float(value - high)))), 12)}")


half_ln2 = mp.log(2) / 2
split("ln 2 in 15 bits and the rest", mp.log(2), 15)
# exp(r) = 1 + r + r^2 q(r); the interval is a little wider than half of ln 2, for the rounding of x / ln 2.
fit("EXP", lambda r: (mp.exp(r) - 1 - r) / r**2 if r else mp.mpf(0.5), lambda r: r**2 / mp.exp(r), -half_ln2 * 1.001, half_ln2 * 1.001, 5)
# log(1 + f) = f - f^2/2 + f^3 p(f)
fit(
    "LOG",
    lambda f: (mp.log1p(f) - f + f**2 / 2) / f**3,
    lambda f: f**3 / mp.log1p(f),
    mp.sqrt(0.5) - 1,
    mp.sqrt(2) - 1,
    8,
)
# tanh(a) = a + a z p(z), z = a^2
tanh_edge = mp.mpf(0.625)
fit("TANH", lambda z: (mp.tanh(mp.sqrt(z)) / mp.sqrt(z) - 1) / z, lambda z: z * mp.sqrt(z) / mp.tanh(mp.sqrt(z)), 1e-12, tanh_edge**2, 5)
# erf(a) = a + a p(z), z = a^2, below the edge; erf(a) = 1 - exp(p(a)) above
erf_edge = mp.mpf(0.9375)
fit("ERF_SMALL", lambda z: mp.erf(mp.sqrt(z)) / mp.sqrt(z) - 1, lambda z: mp.sqrt(z) / mp.erf(mp.sqrt(z)), 1e-12, erf_edge**2, 7)
fit("ERF_LARGE", lambda a: mp.log(mp.erfc(a)), lambda a: mp.erfc(a) / mp.erf(a), erf_edge, 4, 6)
