"""1,000 pairs of sets and datasketch's MinHash of them -> tests/fixtures/minhash.json.

    pip install datasketch==2.0.0    # any later version should agree
    python tests/reference/minhash.py [--check]
"""

import json
import pathlib
import random
import sys

from datasketch import MinHash

PERMUTATIONS = 112
FIXTURE = pathlib.Path(__file__).parent.parent / "fixtures" / "minhash.json"


def main():
    rng = random.Random(1)
    pairs = []
    for pair in range(1000):
        left, right = rng.randint(20, 400), rng.randint(20, 400)
        both = rng.randint(0, min(left, right))
        a, b = (MinHash(num_perm=PERMUTATIONS, seed=1 + pair) for _ in range(2))
        a.update_batch([f"{pair}-{i}".encode() for i in range(left)])
        b.update_batch([f"{pair}-{i}".encode() for i in range(left - both, left - both + right)])
        pairs.append([left, right, both, round(a.jaccard(b) * PERMUTATIONS)])
    text = json.dumps({"permutations": PERMUTATIONS, "pairs": pairs}, separators=(",", ":")) + "\n"
    if "--check" in sys.argv:
        assert FIXTURE.read_text() == text, f"{FIXTURE} differs"
    else:
        FIXTURE.write_text(text)


main()
