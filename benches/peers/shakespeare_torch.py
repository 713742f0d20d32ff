"""Train the recipe shakespeare-char-cpu in PyTorch and print the loss over the whole validation text.

    shakespeare_torch.py TEXT [--seed S] [--threads N] [--steps N] [--recipe FILE]

The settings are read from the recipe file that kiln trains, so both are the same by construction. As nanoGPT does it:
the characters of the whole text, sorted, are the vocabulary; the last tenth is for validation; a batch is random crops
of the rest; a tied head; decay on all matrices. The validation loss is the mean over every target of the last tenth
(its first character is no target), in windows of `context` that do not overlap, the last one shorter.
"""
import argparse
import math
import os
import time
import tomllib

from common import emit, set_threads

HERE = os.path.dirname(os.path.abspath(__file__))
ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
ap.add_argument("text")
ap.add_argument("--seed", type=int, help="instead of the recipe's")
ap.add_argument("--steps", type=int, help="instead of the recipe's")
ap.add_argument("--threads", type=int, default=int(os.environ.get("BENCH_THREADS", os.cpu_count())))
ap.add_argument("--recipe", default=os.path.join(HERE, "../../data/recipes/shakespeare-char-cpu.toml"))
a = ap.parse_args()
set_threads(a.threads)

import torch
from model import GPT

with open(a.recipe, "rb") as f:
    recipe = tomllib.load(f)
spec, data, train, optim = (recipe[k] for k in ("model", "data", "train", "optim"))
assert (spec["kind"], data["tokenizer"], data["split"], optim["schedule"]) == ("gpt2", "char", "tail", "cosine")
assert spec["dropout"] == 0 and optim["decay_embeddings"]
seed = train["seed"] if a.seed is None else a.seed
steps = train["steps"] if a.steps is None else a.steps
batch, context = train["batch"], train["context"]

torch.set_num_threads(a.threads)
torch.manual_seed(seed)
with open(a.text, encoding="utf-8", newline="") as f:
    text = f.read()
ids_of = {c: i for i, c in enumerate(sorted(set(text)))}
ids = torch.tensor([ids_of[c] for c in text])
cut = int(len(ids) * (1 - data["val_fraction"]))
train_ids, val_ids = ids[:cut], ids[cut:]

model = GPT(vocab=len(ids_of), positions=context, layers=spec["layers"], heads=spec["heads"], d=spec["d"],
            bias=spec["bias"], gelu={"gelu": "none", "gelu_tanh": "tanh"}[spec["activation"]])
opt = torch.optim.AdamW(model.decay_groups(optim["weight_decay"]), betas=(optim["beta1"], optim["beta2"]), eps=1e-8)


def crops(source):
    starts = torch.randint(len(source) - context, (batch,))
    at = starts[:, None] + torch.arange(context)
    return source[at], source[at + 1]


def lr_at(step):
    """Linear over the first `warmup` steps, then half a cosine from lr to min_lr; step counts from 0."""
    if step < optim["warmup"]:
        return optim["lr"] * (step + 1) / (optim["warmup"] + 1)
    done = (step - optim["warmup"]) / (steps - optim["warmup"])
    return optim["min_lr"] + (optim["lr"] - optim["min_lr"]) * 0.5 * (1 + math.cos(math.pi * done))


@torch.no_grad()
def whole_loss(source):
    """Mean over all targets source[1..], every one once."""
    n = (len(source) - 1) // context
    x, y = source[: n * context].view(n, context), source[1 : n * context + 1].view(n, context)
    total = sum(model(x[i : i + 256], y[i : i + 256], reduction="sum").double() for i in range(0, n, 256))
    if n * context < len(source) - 1:
        total += model(source[None, n * context : -1], source[None, n * context + 1 :], reduction="sum").double()
    return (total / (len(source) - 1)).item()


started = time.perf_counter()
for step in range(steps):
    for group in opt.param_groups:
        group["lr"] = lr_at(step)
    loss = model(*crops(train_ids))
    opt.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), optim["clip"])
    opt.step()
seconds = time.perf_counter() - started

with torch.no_grad():  # what nanoGPT prints: 20 random batches
    sampled = torch.stack([model(*crops(val_ids)) for _ in range(20)]).mean().item()
emit(bench="shakespeare", peer="torch-eager", case=recipe["run"]["name"], seed=seed, steps=steps, threads=a.threads,
     params=sum(p.numel() for p in model.parameters()), val_loss=whole_loss(val_ids), val_targets=len(val_ids) - 1,
     val_loss_20_batches=sampled, loss=loss.item(), seconds=round(seconds, 1), version=torch.__version__)
