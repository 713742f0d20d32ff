"""Writing with a GPT in PyTorch on the CPU, token by token with cached keys and values, timed.

    decode_torch.py nano|tiny|gpt2|JSON [f32|bf16] [--prompt P] [--tokens N] [--threads N] [--reps N] [--keep-memory] [--serve]

A repetition reads a prompt of P random tokens and chooses the likeliest next one (the time to the first token), then writes
N more, each the likeliest again (the rate). Eager, batch 1, weights and activations in one type; keys and values lie in tensors for the whole context, which
are written in place. Output: see README.md.
"""
import argparse
import os
import time

from common import emit, keep_memory, peak_rss_mb, serve, set_threads, spread

ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
ap.add_argument("config", help="nano, tiny, gpt2, or the numbers that model.py has for these, as JSON (and prompt, tokens)")
ap.add_argument("precision", nargs="?", default="f32", choices=["f32", "bf16"])
ap.add_argument("--prompt", type=int, default=16, help="tokens to read first")
ap.add_argument("--tokens", type=int, default=64, help="tokens to write after the first one")
ap.add_argument("--threads", type=int, default=int(os.environ.get("BENCH_THREADS", os.cpu_count())))
ap.add_argument("--reps", type=int, default=5, help="timed repetitions")
ap.add_argument("--keep-memory", action="store_true", help="glibc keeps freed memory and uses huge pages")
ap.add_argument("--serve", action="store_true", help="one repetition for each line of standard input")
a = ap.parse_args()
if a.keep_memory:
    keep_memory()
set_threads(a.threads)

import torch  # after the thread variables are set
import torch.nn.functional as F
from model import config as read, gpt

torch.set_num_threads(a.threads)
torch.manual_seed(1337)
name, config = read(a.config)
a.prompt, a.tokens = config.get("prompt", a.prompt), config.get("tokens", a.tokens)
dtype = dict(f32=torch.float32, bf16=torch.bfloat16)[a.precision]
model = gpt(config).eval().to(dtype)
shape = (1, config["heads"], config["positions"], config["d"] // config["heads"])
cache = [(torch.zeros(shape, dtype=dtype), torch.zeros(shape, dtype=dtype)) for _ in model.h]


def logits(x, past):
    """Token ids x (1,T) after `past` cached ones -> logits (1,V) of the next token."""
    t = x.shape[1]
    h = model.wte(x) + model.wpe.weight[past : past + t]
    for block, (keys, values) in zip(model.h, cache):
        qkv = block.c_attn(block.ln_1(h)).chunk(3, dim=-1)
        q, k, v = (s.unflatten(-1, (block.heads, -1)).transpose(1, 2) for s in qkv)  # (1,H,T,hd)
        keys[:, :, past : past + t], values[:, :, past : past + t] = k, v
        # A single query sees all keys; a prompt starts from nothing.
        y = F.scaled_dot_product_attention(q, keys[:, :, : past + t], values[:, :, : past + t], is_causal=t > 1)
        h = h + block.attn_proj(y.transpose(1, 2).flatten(-2))
        h = h + block.mlp_proj(F.gelu(block.c_fc(block.ln_2(h)), approximate=block.gelu))
    return F.linear(model.ln_f(h[:, -1]), model.wte.weight)


@torch.inference_mode()
def write():
    """One repetition -> seconds to the first token, seconds of the others, how many those are."""
    x = torch.randint(config["vocab"], (1, a.prompt))
    start = time.perf_counter()
    x = logits(x, 0).argmax(-1, keepdim=True)
    x.item()
    first = time.perf_counter()
    for i in range(a.tokens):
        x = logits(x, a.prompt + i).argmax(-1, keepdim=True)
        x.item()
    return dict(first_seconds=first - start, seconds=time.perf_counter() - first, tokens=a.tokens)


assert 0 < a.prompt and a.prompt + a.tokens <= config["positions"], "the context is too short"
label = dict(bench="decode", peer="torch-eager" + ("-keepmem" if a.keep_memory else ""), threads=a.threads,
             case=f"{name} {a.precision}, prompt {a.prompt}", unit="tokens/s")
facts = dict(version=torch.__version__, params=sum(p.numel() for p in model.parameters()))
write()
if a.serve:
    serve(write, **label, **facts, tokens=a.tokens)
else:
    runs = [write() for _ in range(a.reps)]
    emit(**label, **spread([r["tokens"] / r["seconds"] for r in runs]), peak_rss_mb=peak_rss_mb(), **facts,
         first_seconds=spread([r["first_seconds"] for r in runs]))
