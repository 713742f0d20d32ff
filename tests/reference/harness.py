"""lm-evaluation-harness through `kiln serve`, and on `transformers` with the same model: the same numbers, item by item.

    harness.py MODEL_DIR URL TOKEN --questions FILE.jsonl [--limit N]

MODEL_DIR is a Hugging Face directory (`kiln convert MODEL --out MODEL_DIR`), URL what `kiln serve MODEL_DIR` prints, as
http://127.0.0.1:8080. FILE holds multiple-choice questions, one a line: {"query", "choices": [texts], "gold": number}. Needs `pip install lm_eval[api]`, torch, transformers. Prints the largest difference between the two
log-likelihoods of a choice, and both accuracies.
"""
import argparse
import json
import os
import pathlib
import tempfile

ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
ap.add_argument("model")
ap.add_argument("url")
ap.add_argument("token")
ap.add_argument("--questions", required=True)
ap.add_argument("--limit", type=int, default=100)
a = ap.parse_args()
os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", OPENAI_API_KEY=a.token, TOKENIZERS_PARALLELISM="false")

import lm_eval
from lm_eval.tasks import TaskManager

TASK = """
task: questions
dataset_path: json
dataset_kwargs:
  data_files:
    test: {file}
output_type: multiple_choice
test_split: test
doc_to_text: "{{{{query}}}}\\nAnswer:"
doc_to_target: gold
doc_to_choice: choices
metric_list:
  - metric: acc
  - metric: acc_norm
"""


def run(model, args, **more):
    with tempfile.TemporaryDirectory() as folder:
        pathlib.Path(folder, "questions.yaml").write_text(TASK.format(file=os.path.abspath(a.questions)))
        tasks = TaskManager(include_path=folder, include_defaults=False)
        found = lm_eval.simple_evaluate(model=model, model_args=args, tasks=["questions"], task_manager=tasks,
                                        limit=a.limit, log_samples=True, bootstrap_iters=0, **more)
    samples = sorted(found["samples"]["questions"], key=lambda sample: sample["doc_id"])
    return found["results"]["questions"], [[float(r[0][0]) for r in s["resps"]] for s in samples], \
        [[str(r[0][1]) == "True" for r in s["resps"]] for s in samples]


theirs, own, greedy = run("hf", f"pretrained={a.model},dtype=float32,device=cpu", batch_size=8)
served, told, told_greedy = run("local-completions", dict(model="served", base_url=f"{a.url}/v1/completions", tokenizer=a.model,
                                                          num_concurrent=4, max_retries=1, max_length=2048))
far = max(abs(x - y) for xs, ys in zip(own, told) for x, y in zip(xs, ys))
print(json.dumps(dict(items=len(own), choices=sum(map(len, own)), largest_difference=far, same_greedy=greedy == told_greedy,
                      transformers={k: v for k, v in theirs.items() if k.startswith("acc")},
                      kiln={k: v for k, v in served.items() if k.startswith("acc")})))
assert far <= 1e-3, far
assert all(theirs[k] == served[k] for k in theirs if k.startswith("acc") and "stderr" not in k), (theirs, served)
