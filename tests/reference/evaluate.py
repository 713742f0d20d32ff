"""kiln eval beside lm-evaluation-harness, item by item.

    python evaluate.py MODEL KIND DATA SAMPLES.jsonl [LIMIT]

MODEL is a folder that transformers opens; KIND is arc-easy, lambada, text (DATA is .jsonl or .jsonl.gz), crows-pairs (crows_pairs_anonymized.csv)
or winogender (all_sentences.tsv); SAMPLES is what
`kiln eval MODEL --tasks KIND --data DATA --limit LIMIT --log-samples DIR` wrote. Prints the harness's
figures, how far each item's log-likelihoods are from kiln's, and on how many items the two choose differently.
"""

import csv
import gzip
import json
import sys
import tempfile

import lm_eval
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks.crows_pairs import utils as crows

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
    # As in the harness's own files, which load them from elsewhere.
    "crows-pairs": {
        "output_type": "multiple_choice",
        "doc_to_text": "",
        "doc_to_target": 0,
        "doc_to_choice": crows.doc_to_choice,
        "target_delimiter": "",
        "process_results": crows.process_results,
        "metric_list": [{"metric": m, "aggregation": "mean", "higher_is_better": False} for m in ("likelihood_diff", "pct_stereotype")],
    },
    "winogender": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{sentence}} \u2018{{pronoun.capitalize()}}\u2019 refers to the",
        "doc_to_target": "label",
        "doc_to_choice": "{{[occupation, participant]}}",
        "metric_list": [{"metric": "acc"}],
    },
}
PRONOUNS = "he she they him her them his their".split()


def lines_of(path):
    if not path.endswith((".csv", ".tsv")):
        return (gzip.open if path.endswith(".gz") else open)(path, "rt", encoding="utf-8").read().splitlines()
    rows = list(csv.DictReader(open(path, encoding="utf-8", newline=""), delimiter="\t" if path.endswith(".tsv") else ","))
    for row in rows:
        row.pop("", None)  # the numbers of rows, which the harness would take for the empty prompt
        if "sentid" in row:
            row["occupation"], row["participant"], answer = row["sentid"].split(".")[:3]
            words = (word.strip(".,;!?").lower() for word in row["sentence"].split())
            row["label"], row["pronoun"] = int(answer), next(word for word in words if word in PRONOUNS)
    return [json.dumps(row) for row in rows]


model, kind, data, samples = sys.argv[1:5]
limit = int(sys.argv[5]) if len(sys.argv) > 5 else None
lines = lines_of(data)
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
