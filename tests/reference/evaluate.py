"""kiln eval beside lm-evaluation-harness, item by item.

    python evaluate.py MODEL KIND DATA.jsonl[.gz] SAMPLES.jsonl [LIMIT]

MODEL is a folder that transformers opens; KIND is arc-easy, lambada or text; SAMPLES is what
`kiln eval MODEL --tasks KIND --data DATA --limit LIMIT --log-samples DIR` wrote. Prints the harness's
figures, how far each item's log-likelihoods are from kiln's, and on how many items the two choose differently.
"""

import gzip
import json
import sys
import tempfile

import lm_eval
from lm_eval.models.huggingface import HFLM

TASKS = {
    "arc-easy": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{query}}\nAnswer:",
        "doc_to_choice": "choices",
        "doc_to_target": "gold",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    },
    "lambada": {
        "output_type": "loglikelihood",
        "doc_to_text": "{{context}}",
        "doc_to_target": " {{continuation}}",
        "metric_list": [{"metric": "perplexity"}, {"metric": "acc"}],
    },
    "text": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": [{"metric": m} for m in ("bits_per_byte", "byte_perplexity", "word_perplexity")],
    },
}

model, kind, data, samples = sys.argv[1:5]
limit = int(sys.argv[5]) if len(sys.argv) > 5 else None
lines = (gzip.open if data.endswith(".gz") else open)(data, "rt", encoding="utf-8").read().splitlines()
with tempfile.NamedTemporaryFile("w", suffix=".jsonl", encoding="utf-8") as plain:
    plain.write("\n".join(lines[:limit]) + "\n")
    plain.flush()
    task = TASKS[kind] | {
        "task": kind,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": plain.name}},
        "test_split": "test",
    }
    found = lm_eval.simple_evaluate(
        model=HFLM(pretrained=model, dtype="float32", device="cpu", batch_size=8),
        tasks=[task],
        log_samples=True,
        bootstrap_iters=0,
    )
print({name: value for name, value in found["results"][kind].items() if isinstance(value, float)})

ours = [json.loads(line) for line in open(samples, encoding="utf-8")]
theirs = sorted(found["samples"][kind], key=lambda sample: sample["doc_id"])
assert len(ours) == len(theirs), (len(ours), len(theirs))
worst, different = 0.0, 0
for a, b in zip(ours, theirs):
    replies = [reply[0] if isinstance(reply[0], (list, tuple)) else reply for reply in b["resps"]]
    nats = [float(reply[0]) if isinstance(reply, (list, tuple)) else float(reply) for reply in replies]
    worst = max([worst] + [abs(x - y) / max(1.0, abs(y)) for x, y in zip(a["nats"], nats)])
    best = lambda x: max(range(len(x)), key=lambda i: x[i])
    different += best(a["nats"]) != best(nats)
print(f"{len(ours)} items: log-likelihoods differ by {worst:.1e} at most (relative), choices on {different}")
