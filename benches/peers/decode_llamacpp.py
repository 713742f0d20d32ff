"""Writing with llama.cpp on the CPU, token by token, timed: `pip install llama-cpp-python`, which is built from source.

    decode_llamacpp.py MODEL.gguf [--prompt P] [--tokens N] [--threads N] [--reps N]

A repetition reads P tokens and chooses the likeliest next one, then writes N more, each the likeliest again. `kiln convert MODEL
--out OTHER.gguf --dtype f32` (or q8_0) makes files of other types. Run it in turns with `kiln bench decode MODEL --prompt P --tokens N`.
Prints one JSON object: tokens per second, and tokens of the prompt per second, of each repetition but the first, sorted.
"""
import argparse
import json
import os
import time

ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
ap.add_argument("model")
ap.add_argument("--prompt", type=int, default=256)
ap.add_argument("--tokens", type=int, default=32)
ap.add_argument("--threads", type=int, default=os.cpu_count())
ap.add_argument("--reps", type=int, default=3)
a = ap.parse_args()

from llama_cpp import Llama

model = Llama(model_path=a.model, n_ctx=a.prompt + a.tokens + 1, n_batch=a.prompt, n_threads=a.threads, n_threads_batch=a.threads,
              verbose=False)
ids = [i * 7919 % (model.n_vocab() - 100) + 100 for i in range(a.prompt)]
written, read = [], []
for _ in range(a.reps + 1):
    model.reset()
    start = time.perf_counter()
    model.eval(ids)
    token = model.sample(temp=0.0)
    first = time.perf_counter()
    for _ in range(a.tokens):
        model.eval([token])
        token = model.sample(temp=0.0)
    written.append(a.tokens / (time.perf_counter() - first))
    read.append(a.prompt / (first - start))
print(json.dumps(dict(bench="decode", peer="llama.cpp", model=os.path.basename(a.model), threads=a.threads,
                      tokens_per_s=sorted(written[1:]), prompt_tokens_per_s=sorted(read[1:]))))
