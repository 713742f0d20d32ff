"""Fixtures of a whole GPT-2 in float64: logits, loss, every gradient, ten AdamW steps.

    python tests/reference/gpt2.py            writes tests/fixtures/gpt2*.safetensors
    python tests/reference/gpt2.py --check    recomputes and compares with the committed files

The model is spelled out with elementary operations on a dictionary of tensors; F.* is used only to cross-check.
Weights have the names and the layout of a Hugging Face GPT-2 checkpoint: `c_attn`, `c_proj` and `c_fc` are Conv1D
there, stored (in, out) and applied as x @ W + b. Keys are listed in README.md.
"""
import math

import torch
import torch.nn.functional as F

from fixture import Source, finish

VOCAB, POSITIONS, LAYERS, HEADS, D = 37, 16, 2, 3, 24  # head size 8; no size is a multiple of 16
B, T, STEPS = 3, 13, 10  # T < POSITIONS: the last three rows of wpe are never read
LN_EPS = 1e-5
ADAMW = dict(lr=1e-2, betas=(0.9, 0.95), eps=1e-8)
WEIGHT_DECAY, CLIP = 0.1, 1.0

NO_DECAY = ("wte.weight", "wpe.weight")  # besides everything one-dimensional


def init(src, bias):
    """Larger than GPT-2's init, and with no zeros or ones, so that every term of every gradient matters."""
    p = {"wte.weight": src.normal(VOCAB, D, std=0.3), "wpe.weight": src.normal(POSITIONS, D, std=0.3)}

    def norm(name):
        p[f"{name}.weight"] = src.normal(D, mean=1.0, std=0.2)
        if bias:
            p[f"{name}.bias"] = src.normal(D, std=0.1)

    def conv1d(name, n_in, n_out):
        p[f"{name}.weight"] = src.normal(n_in, n_out, std=0.2)
        if bias:
            p[f"{name}.bias"] = src.normal(n_out, std=0.1)

    for i in range(LAYERS):
        norm(f"h.{i}.ln_1")
        conv1d(f"h.{i}.attn.c_attn", D, 3 * D)
        conv1d(f"h.{i}.attn.c_proj", D, D)
        norm(f"h.{i}.ln_2")
        conv1d(f"h.{i}.mlp.c_fc", D, 4 * D)
        conv1d(f"h.{i}.mlp.c_proj", 4 * D, D)
    norm("ln_f")
    return p


def gelu_tanh(x):
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def gelu_erf(x):
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def layer_norm(x, w, b):
    centred = x - x.mean(-1, keepdim=True)
    y = centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + LN_EPS) * w
    return y if b is None else y + b


def logits_of(p, x, gelu):
    """x (B,T) of token ids -> logits (B,T,V)."""
    t = x.shape[1]
    norm = lambda name, h: layer_norm(h, p[f"{name}.weight"], p.get(f"{name}.bias"))

    def conv1d(name, h):
        y = h @ p[f"{name}.weight"]
        return y + p[f"{name}.bias"] if f"{name}.bias" in p else y

    future = torch.triu(torch.ones(t, t, dtype=torch.bool), diagonal=1)
    h = p["wte.weight"][x] + p["wpe.weight"][:t]  # (B,T,D)
    for i in range(LAYERS):
        qkv = conv1d(f"h.{i}.attn.c_attn", norm(f"h.{i}.ln_1", h))
        q, k, v = (s.unflatten(-1, (HEADS, -1)).transpose(1, 2) for s in qkv.split(D, dim=-1))  # (B,H,T,hd)
        scores = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).masked_fill(future, -math.inf)
        y = (torch.softmax(scores, -1) @ v).transpose(1, 2).flatten(-2)
        h = h + conv1d(f"h.{i}.attn.c_proj", y)
        h = h + conv1d(f"h.{i}.mlp.c_proj", gelu(conv1d(f"h.{i}.mlp.c_fc", norm(f"h.{i}.ln_2", h))))
    return norm("ln_f", h) @ p["wte.weight"].T


def loss_of(p, x, y, gelu):
    """Mean over all positions of -log softmax(logits)[y], and the logits."""
    logits = logits_of(p, x, gelu)
    nll = torch.logsumexp(logits, -1) - logits.gather(-1, y.unsqueeze(-1)).squeeze(-1)
    loss = nll.mean()
    rtol = 1e-12 if loss.dtype == torch.float64 else 1e-5
    assert torch.allclose(loss, F.cross_entropy(logits.flatten(0, 1), y.flatten()), rtol=rtol)
    return loss, logits


def gradients(p, x, y, gelu):
    p = {k: v.clone().requires_grad_() for k, v in p.items()}
    loss, logits = loss_of(p, x, y, gelu)
    loss.backward()
    grads = {k: v.grad for k, v in p.items()}
    norm = torch.sqrt(sum((g**2).sum() for g in grads.values()))
    return loss.detach(), logits.detach(), grads, norm


def train(p, xs, ys, gelu):
    """STEPS AdamW steps, one batch each -> losses before each update, gradient norms before clipping, final weights."""
    p = {k: v.clone().requires_grad_() for k, v in p.items()}
    decayed = [k for k, v in p.items() if v.dim() == 2 and k not in NO_DECAY]
    groups = [
        dict(params=[p[k] for k in decayed], weight_decay=WEIGHT_DECAY),
        dict(params=[v for k, v in p.items() if k not in decayed], weight_decay=0.0),
    ]
    opt = torch.optim.AdamW(groups, foreach=False, fused=False, **ADAMW)
    losses, norms = [], []
    for x, y in zip(xs, ys):
        opt.zero_grad()
        loss, _ = loss_of(p, x, y, gelu)
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(p.values(), CLIP, foreach=False))
        opt.step()
        losses.append(loss.detach())
    return torch.stack(losses), torch.stack(norms), {k: v.detach() for k, v in p.items()}


def about(what, activation, bias):
    return dict(
        what=what, layout="linear weights as in Hugging Face's GPT-2 checkpoints: Conv1D, (in, out)",
        activation=activation, bias=bias, ln_eps=LN_EPS,
        vocab=VOCAB, positions=POSITIONS, layers=LAYERS, heads=HEADS, d=D,
        lr=ADAMW["lr"], beta1=ADAMW["betas"][0], beta2=ADAMW["betas"][1], eps=ADAMW["eps"],
        weight_decay=WEIGHT_DECAY, clip=CLIP,
    )


def whole(name, seed, activation, bias):
    gelu = dict(gelu_tanh=gelu_tanh, gelu=gelu_erf)[activation]
    src = Source(seed)
    p = init(src, bias)
    x, y = src.ints(VOCAB, B, T), src.ints(VOCAB, B, T)
    xs, ys = src.ints(VOCAB, STEPS, B, T), src.ints(VOCAB, STEPS, B, T)
    loss, logits, grads, norm = gradients(p, x, y, gelu)
    losses, norms, final = train(p, xs, ys, gelu)

    single = {k: v.float() for k, v in p.items()}  # how far float32 is from these numbers: what a test may ask for
    assert all(torch.equal(v.double(), p[k]) for k, v in single.items())
    losses32, _, final32 = train(single, xs, ys, gelu)
    _, _, grads32, _ = gradients(single, x, y, gelu)
    print(f"{name}: loss {loss:.6f}, norm {norm:.4f}; norms {[round(n.item(), 3) for n in norms]}")
    off = lambda ours, exact: (ours - exact).abs().max().item()
    print(f"  torch in f32: losses off by {off(losses32 / losses, torch.ones(STEPS)):.0e} relative, gradients by "
          f"{max(off(grads32[k], g) / g.abs().max().item() for k, g in grads.items()):.0e} of "
          f"a tensor's largest; final weights absolutely, the worst three tensors:",
          ", ".join(f"{k} {d:.0e}" for d, k in sorted((off(final32[k], v), k) for k, v in final.items())[:-4:-1]))

    finish(name, {
        **{f"init.{k}": v.float() for k, v in p.items()},
        "x": x, "y": y, "logits": logits, "loss": loss, "grad_norm": norm,
        **{f"grad.{k}": v for k, v in grads.items()},
        "train.x": xs, "train.y": ys, "train.losses": losses, "train.grad_norms": norms,
        **{f"final.{k}": v.float() for k, v in final.items()},
    }, about(f"GPT-2, {activation}, {'with' if bias else 'without'} biases", activation, bias))
    return p


if __name__ == "__main__":
    # Seed 43: no gradient passes so close to zero that AdamW would make f32 rounding visible; some steps are clipped.
    p = whole("gpt2", 43, "gelu_tanh", bias=True)
    whole("gpt2-erf-nobias", 2, "gelu", bias=False)

    # Gradient accumulation: rows 0..3 and 3..6 as two micro-batches, each loss halved, give what one batch of 6 gives.
    src = Source(3)
    x, y = src.ints(VOCAB, 2 * B, T), src.ints(VOCAB, 2 * B, T)
    loss, _, grads, norm = gradients(p, x, y, gelu_tanh)
    halves = [gradients(p, x[i:i + B], y[i:i + B], gelu_tanh)[2] for i in (0, B)]
    assert all(torch.allclose((halves[0][k] + halves[1][k]) / 2, grads[k], rtol=1e-10, atol=1e-14) for k in grads)
    finish("gpt2-accumulate", {
        "x": x, "y": y, "loss": loss, "grad_norm": norm, **{f"grad.{k}": v for k, v in grads.items()},
    }, about("one batch of 6, to be met by two micro-batches of 3; init.* of gpt2.safetensors", "gelu_tanh", True))
