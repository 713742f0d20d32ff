"""One training step of a GPT in PyTorch, timed.

    gpt_torch.py nano|tiny|gpt2|JSON [f32|bf16] [eager|compile] [--threads N] [--device cpu|cuda] [--reps N]
                 [--keep-memory] [--serve]

A step is forward, mean cross-entropy, backward, clip_grad_norm_(1.0), fused AdamW, zero_grad, on a new batch of random
tokens (drawn outside the timed part). bf16 is torch.autocast over f32 weights. Output: see README.md.
"""
import argparse
import os
import time

from common import add_device, emit, keep_memory, peak_rss_mb, serve, set_threads, spread

ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
ap.add_argument("config", help="nano, tiny, gpt2, or the numbers that model.py has for these, as JSON")
ap.add_argument("precision", nargs="?", default="f32", choices=["f32", "bf16"])
ap.add_argument("mode", nargs="?", default="eager", choices=["eager", "compile"])
ap.add_argument("--threads", type=int, default=int(os.environ.get("BENCH_THREADS", os.cpu_count())))
ap.add_argument("--reps", type=int, default=9, help="timed steps")
ap.add_argument("--warmup", type=int, default=3, help="steps before the first timed one")
ap.add_argument("--keep-memory", action="store_true", help="glibc keeps freed memory and uses huge pages")
ap.add_argument("--serve", action="store_true", help="one step for each line of standard input")
add_device(ap)
a = ap.parse_args()
if a.keep_memory:
    keep_memory()
set_threads(a.threads)

import torch  # after the thread variables are set
from model import config as read, gpt

torch.set_num_threads(a.threads)
torch.manual_seed(1337)
torch.set_default_device(a.device)
name, config = read(a.config)
batch, T = config["batch"], config["context"]
model = gpt(config)
forward = torch.compile(model) if a.mode == "compile" else model
opt = torch.optim.AdamW(model.decay_groups(0.1), lr=3e-4, betas=(0.9, 0.95), fused=True)


def step():
    """One optimizer step on a new batch -> seconds, tokens, loss."""
    x, y = torch.randint(config["vocab"], (2, batch, T))
    if a.device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    with torch.autocast(a.device, dtype=torch.bfloat16, enabled=a.precision == "bf16"):
        loss = forward(x, y)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    opt.step()
    opt.zero_grad()
    if a.device == "cuda":
        torch.cuda.synchronize()
    return dict(seconds=time.perf_counter() - start, tokens=batch * T, loss=loss.item())


label = dict(bench="step", peer=f"torch-{a.mode}" + ("-keepmem" if a.keep_memory else ""),
             case=f"{name} {a.precision}", threads=a.threads, unit="tokens/s")
facts = dict(version=torch.__version__, params=sum(p.numel() for p in model.parameters()))
first = step()["loss"]  # about ln(vocab): a wrong step shows
for _ in range(a.warmup - 1):
    step()
if a.serve:
    serve(step, **label, **facts, tokens=batch * T, first_loss=first)
else:
    runs = [step() for _ in range(a.reps)]
    emit(**label, **spread([r["tokens"] / r["seconds"] for r in runs]), peak_rss_mb=peak_rss_mb(), **facts,
         first_loss=first, last_loss=runs[-1]["loss"])
