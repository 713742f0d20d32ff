"""The numbers of `src/measure/weat.rs`'s test: WEAT in numpy, by the formulas of Caliskan et al. 2017.

    python weat.py

Words are numbered from 0, x, y, a, b in turn; component k of word i is sin(i * i + 3 * k + 1), of five.
"""

from itertools import combinations

import numpy as np

SIZES = [5, 4, 3, 2]  # x, y, a, b
i = np.arange(sum(SIZES))[:, None]
vectors = np.sin(i * i + 3 * np.arange(5)[None, :] + 1)
vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
x, y, a, b = np.split(vectors, np.cumsum(SIZES)[:-1])

words = np.concatenate([x, y])
s = (words @ a.T).mean(axis=1) - (words @ b.T).mean(axis=1)
effect = (s[: len(x)].mean() - s[len(x) :].mean()) / s.std(ddof=1)
own = s[: len(x)].sum()
sums = [s[list(chosen)].sum() for chosen in combinations(range(len(s)), len(x))]
above = sum(total >= own - 1e-12 for total in sums)
print(f"d = {effect:.15f}, p = {above} / {len(sums)}")
