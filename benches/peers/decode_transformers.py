"""Writing with a model of Hugging Face's transformers on the CPU, token by token with cached keys and values, timed.

    decode_transformers.py JSON [f32|bf16] [--prompt P] [--tokens N] [--threads N] [--reps N] [--keep-memory] [--serve]

JSON: {"transformers": what config.json says, "prompt": P, "tokens": N}. Weights are random, which takes the same time. A
repetition reads a prompt of P random tokens and chooses the likeliest next one (the time to the first token), then writes N
more, each the likeliest again (the rate): by the model's forward pass itself, without what `generate` adds. Eager, batch 1,
the default attention (sdpa) and cache. Output: see README.md.
"""
import argparse
import json
import os
import time

from common import emit, keep_memory, peak_rss_mb, serve, set_threads, spread

ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
ap.add_argument("config")
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
os.environ["HF_HUB_OFFLINE"] = "1"

import torch  # after the thread variables are set
import transformers
from transformers import AutoConfig, AutoModelForCausalLM

torch.set_num_threads(a.threads)
torch.manual_seed(1337)
transformers.logging.set_verbosity_error()
asked = json.loads(a.config)
a.prompt, a.tokens = asked.get("prompt", a.prompt), asked.get("tokens", a.tokens)
config = AutoConfig.for_model(**asked["transformers"])
dtype = dict(f32=torch.float32, bf16=torch.bfloat16)[a.precision]
model = AutoModelForCausalLM.from_config(config, dtype=dtype).eval()


@torch.inference_mode()
def write():
    """One repetition -> seconds to the first token, seconds of the others, how many those are."""
    x = torch.randint(config.vocab_size, (1, a.prompt))
    start = time.perf_counter()
    out = model(x, use_cache=True, logits_to_keep=1)
    x = out.logits[:, -1].argmax(-1, keepdim=True)
    x.item()
    first = time.perf_counter()
    for _ in range(a.tokens):
        out = model(x, use_cache=True, past_key_values=out.past_key_values, logits_to_keep=1)
        x = out.logits[:, -1].argmax(-1, keepdim=True)
        x.item()
    return dict(first_seconds=first - start, seconds=time.perf_counter() - first, tokens=a.tokens)


label = dict(bench="decode", peer="transformers" + ("-keepmem" if a.keep_memory else ""), threads=a.threads,
             case=f"{config.model_type} {a.precision}, prompt {a.prompt}", unit="tokens/s")
facts = dict(version=transformers.__version__, params=sum(p.numel() for p in model.parameters()))
write()
if a.serve:
    serve(write, **label, **facts, tokens=a.tokens)
else:
    runs = [write() for _ in range(a.reps)]
    emit(**label, **spread([r["tokens"] / r["seconds"] for r in runs]), peak_rss_mb=peak_rss_mb(), **facts,
         first_seconds=spread([r["first_seconds"] for r in runs]))
