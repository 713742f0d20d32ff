"""Does `transformers` find in a run's newest checkpoint the model that kiln trained?

    python tests/reference/checkpoint.py runs/village

Loads the checkpoint with AutoModelForCausalLM, computes the loss over the run's whole validation part as kiln does
(windows end to end, every token but the first a target once) and compares it with the one in metrics.jsonl.
"""
import json
import sys
import tomllib
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM

run = Path(sys.argv[1])
checkpoint = max((run / "checkpoints").glob("step-*"))
recipe = tomllib.loads((run / "recipe.toml").read_text())
context, batch = recipe["train"]["context"], recipe["train"]["batch"]
model, info = AutoModelForCausalLM.from_pretrained(checkpoint, output_loading_info=True)
print(type(model).__name__, {k: v for k, v in info.items() if v})

# llm.c's shards: a header of 256 i32, then u16.
info = json.loads((run / "data/dataset.json").read_text())
names = [shard["file"] for shard in info["val"]["shards"]]
tokens = np.concatenate([np.fromfile(run / "data" / name, np.uint16, offset=1024) for name in names])
tokens = torch.from_numpy(tokens.astype(np.int64))
nats, targets = 0.0, len(tokens) - 1
with torch.no_grad():
    for start in range(0, targets, batch * context):
        x = tokens[start:start + batch * context][:targets - start]
        y = tokens[start + 1:start + 1 + batch * context]
        whole = len(x) // context * context  # the last window may be shorter than the others
        for x, y in ((x[:whole].view(-1, context), y[:whole].view(-1, context)), (x[None, whole:], y[None, whole:])):
            if x.numel():
                nats += torch.nn.functional.cross_entropy(model(x).logits.flatten(0, 1), y.flatten(), reduction="sum").item()
step = int(checkpoint.name.removeprefix("step-"))
records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
ours = next(r["val_loss"] for r in records if r["step"] == step)
print(f"step {step}: {targets} targets; loss by transformers {nats / targets:.8f}, by kiln {ours:.8f}, "
      f"off by {abs(nats / targets - ours):.1e}")
assert abs(nats / targets - ours) < 1e-5
