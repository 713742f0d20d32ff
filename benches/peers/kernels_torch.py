"""Kernels in PyTorch, timed: matrix products, single operations, cross-entropy, AdamW, batches.

    kernels_torch.py [--threads N] [--device cpu|cuda] [--keep-memory] --serve

Each line of standard input that holds a case, as JSON, is made ready; each empty line runs one repetition of it. Output:
see README.md. Forward and backward are timed apart, as `forward_seconds` and `backward_seconds`; what is one pass in
kiln (the loss with its gradient) is `seconds`.
"""
import argparse
import os
import re

from common import add_device, keep_memory, repeated, serve_cases, set_threads

ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
ap.add_argument("--threads", type=int, default=int(os.environ.get("BENCH_THREADS", os.cpu_count())))
ap.add_argument("--keep-memory", action="store_true", help="glibc keeps freed memory and uses huge pages")
ap.add_argument("--serve", action="store_true", help="accepted, as all scripts do")
add_device(ap)
a = ap.parse_args()
if a.keep_memory:
    keep_memory()
set_threads(a.threads)

import numpy as np
import torch  # after the thread variables are set
import torch.nn.functional as F

torch.set_num_threads(a.threads)
torch.manual_seed(1337)
torch.set_default_device(a.device)
DTYPES = dict(f32=torch.float32, bf16=torch.bfloat16, f16=torch.float16, i32=torch.int64)


def gemm(case):
    m, k, n, dtype = case["m"], case["k"], case["n"], DTYPES[case["dtype"]]
    # Operands lie as the form says; torch reads a transposed view.
    x = torch.randn(k, m, dtype=dtype).t() if case["form"] == "tn" else torch.randn(m, k, dtype=dtype)
    w = torch.randn(n, k, dtype=dtype).t() if case["form"] == "nt" else torch.randn(k, n, dtype=dtype)
    out = torch.empty(m, n, dtype=dtype)

    @torch.inference_mode()
    def call(clock):
        with clock.part("seconds"):
            torch.mm(x, w, out=out)
    return repeated(call, a.device)


def xent(case):
    logits = torch.randn(case["rows"], case["vocab"], requires_grad=True)
    targets = torch.randint(case["vocab"], (case["rows"],))

    def call(clock):
        logits.grad = None
        with clock.part("seconds"):
            F.cross_entropy(logits, targets).backward()
    return repeated(call, a.device)


def adamw(case):
    from model import GPT
    sizes = case["gpt2"]
    model = GPT(sizes["vocab"], sizes["context"], sizes["layers"], 12, sizes["d"], True, "tanh")
    for p in model.parameters():
        p.grad = torch.randn_like(p) * 1e-3
    opt = torch.optim.AdamW(model.decay_groups(0.1), lr=1e-4, betas=(0.9, 0.95), fused=True)

    def call(clock):
        with clock.part("seconds"):
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            opt.step()
    return repeated(call, a.device)


def data(case):
    """As nanoGPT does it: windows at random places of a memory map."""
    tokens = np.memmap(case["path"], dtype=np.uint16, mode="r", offset=case["skip"])
    batch, t = case["batch"], case["context"]

    def call(clock):
        with clock.part("seconds"):
            at = torch.randint(len(tokens) - t, (batch,))
            x = torch.stack([torch.from_numpy(tokens[i : i + t].astype(np.int64)) for i in at])
            y = torch.stack([torch.from_numpy(tokens[i + 1 : i + 1 + t].astype(np.int64)) for i in at])
    return repeated(call)


def heads(case, qkv):
    """Packed (B,T,3HD) of kiln's case "B4 T256 H12/12 D64" -> separate q, k, v (B,H,T,D), as torch likes them best."""
    words = {word[0]: word[1:] for word in case["case"].split()}
    h, kv = map(int, words["H"].split("/"))
    if h != kv:
        raise NotImplementedError("as many heads of keys and values as of queries")
    shape = (int(words["B"]), h, int(words["T"]), int(words["D"]))
    return [torch.randn(shape, dtype=qkv.dtype) for _ in range(3)]


def rope(x, cos, sin):
    """x (B,T,heads*D), all but the last 8 of 48 heads turned; cos, sin (T,D/2)."""
    h = x.unflatten(-1, (-1, 2 * cos.shape[-1]))
    turned, rest = h[:, :, :-8], h[:, :, -8:]
    u, v = turned.chunk(2, dim=-1)
    c, s = cos[None, :, None], sin[None, :, None]
    return torch.cat([torch.cat([u * c - v * s, v * c + u * s], dim=-1), rest], dim=2).flatten(-2)


def layer_norm(case):
    """Inputs: x, the residual where there is one, gain, bias where there is one."""
    residual, bias = ("residual=true" in case["case"], "bias=true" in case["case"])

    def f(*x):
        s = x[0] + x[1] if residual else x[0]
        g, b = x[1 + residual], (x[2 + residual] if bias else None)
        y = F.layer_norm(s, s.shape[-1:], g, b) if case["op"] == "layernorm" else F.rms_norm(s, s.shape[-1:], g)
        return (y, s) if residual else y
    return f


def linear(case):
    def f(x, w, b=None):
        y = F.linear(x, w, b)
        return F.gelu(y, approximate="tanh") if "gelu" in case["case"] else y
    return f


def token_logprob(logits, ids):
    """Log-probability and entropy of each token."""
    log = F.log_softmax(logits, dim=-1)
    return log.gather(-1, ids[:, None])[:, 0], -(log.exp() * log).sum(-1)


def embedding(ids, table, positions=None):
    y = F.embedding(ids, table)
    return y if positions is None else y + positions[: ids.shape[1]]


def conv(case):
    """Pictures and weights as `pictures` lays them out."""
    stride, padding = map(int, re.search(r"s(\d+) p(\d+)", case["case"]).groups())
    f = F.conv_transpose2d if case["op"] == "conv_transpose2d" else F.conv2d
    return lambda x, w, b=None: f(x, w, b, stride=stride, padding=padding)


def pictures(x, layout):
    """NHWC and (O, kh, kw, C) of kiln's case as PyTorch has them, in one of its layouts of memory."""
    return x if x.dim() < 4 else x.permute(0, 3, 1, 2).contiguous(memory_format=layout).detach()


REDUCE = {"sum All": lambda x: x.sum(), "mean All": lambda x: x.mean(),
          "sum LastAxis": lambda x: x.sum(-1), "mean LastAxis": lambda x: x.mean(-1)}
# Names of kiln's operations. Where a case's name says more than its inputs do, a function of the case gives the operation.
OPS = {
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"), "gelu_erf": F.gelu, "silu": F.silu, "relu": F.relu,
    "tanh": torch.tanh, "sigmoid": torch.sigmoid, "add": torch.add, "sub": torch.sub, "mul": torch.mul, "scale": lambda x: -1.7 * x,
    "swiglu": lambda gate, up: F.silu(gate) * up, "dropout": lambda x: F.dropout(x, 0.1), "embedding": embedding,
    "linear_xent": lambda x, w, y: F.cross_entropy(F.linear(x, w), y), "token_logprob": token_logprob, "rope": rope,
}
OPS_OF_CASES = {
    "conv2d": conv, "conv_transpose2d": conv, "layernorm": layer_norm, "rmsnorm": layer_norm, "linear": linear,
    "sum": lambda case: REDUCE[" ".join(case["case"].split()[:2])],
    "mean": lambda case: REDUCE[" ".join(case["case"].split()[:2])],
    "cast": lambda case: lambda x: x.to(DTYPES[case["case"].split()[2]]),
    "attention": lambda case: lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
}


def op(case):
    """In each of PyTorch's layouts of pictures, where there are any: the faster one counts, anew in each repetition."""
    if not case["op"].startswith("conv"):
        return op_in(case, None)
    each = [op_in(case, layout) for layout in (torch.contiguous_format, torch.channels_last)]
    return lambda: min((run() for run in each), key=lambda record: record["seconds"])


def op_in(case, layout):
    name = case["op"]
    f = OPS_OF_CASES[name](case) if name in OPS_OF_CASES else OPS.get(name)
    if f is None:
        raise NotImplementedError(f"no {name}")

    half = any(x["dtype"] == "bf16" for x in case["inputs"])

    def fill(x):
        # Torch wants all floats of an operation in one type.
        dtype = torch.bfloat16 if half and x["dtype"] == "f32" else DTYPES[x["dtype"]]
        return torch.randint(x["below"], x["shape"]) if x["below"] else torch.randn(x["shape"]).to(dtype)
    inputs = [fill(x) for x in case["inputs"]]
    if layout is not None:
        inputs = [pictures(x, layout) for x in inputs]
    wanted = [x["grad"] for x in case["inputs"]]
    if name == "attention":
        inputs, wanted = heads(case, inputs[0]), [True] * 3
    for x, grad in zip(inputs, wanted):
        x.requires_grad_(grad)
    first = f(*inputs)
    dy = [torch.randn_like(y) for y in first] if isinstance(first, tuple) else torch.randn_like(first)
    del first

    if name == "linear_xent":
        dy = torch.ones_like(dy)

    def call(clock):
        for x in inputs:
            x.grad = None
        with clock.part("forward_seconds"):
            y = f(*inputs)
        if any(wanted):
            with clock.part("backward_seconds"):
                torch.autograd.backward(y, dy)
    repetition = repeated(call, a.device)

    def with_whole():
        record = repetition()
        return record | dict(seconds=sum(record.values()))
    return with_whole


MAKE = dict(gemm=gemm, xent=xent, adamw=adamw, data=data, op=op)


def make(case):
    if case is None or case.get("bench") not in MAKE:
        raise NotImplementedError("no such case")
    return MAKE[case["bench"]](case)


serve_cases(make, bench="kernels", peer="torch" + ("-keepmem" if a.keep_memory else ""), threads=a.threads,
            version=torch.__version__)
