"""Fixtures of single operations in float64, as an outside check of the engine's own f64 references.

    python tests/reference/ops.py            writes tests/fixtures/ops.safetensors
    python tests/reference/ops.py --check    recomputes and compares with the committed file

Each case is written out from its formula with elementary operations, differentiated by autograd, and, where torch has
the same operation, checked against it. A case stores its inputs, its outputs, for every output y the upstream gradient
dy, and for every differentiable input x the gradient dx. Cases, shapes and formulas are listed in README.md.
"""
import math

import torch
import torch.nn.functional as F

from fixture import Source, finish
from gpt2 import gelu_erf, gelu_tanh

tensors, constants = {}, {}


def case(name, fn, inputs, fixed=(), twin=None, **numbers):
    """fn(*inputs, *fixed) -> {output: tensor}. Gradients go to `inputs`; `fixed` are integers or weights without one.

    twin: torch's own operation with the same arguments; its outputs, in the order of fn's, must be equal.
    """
    src = Source(sum(map(ord, name)))  # upstream gradients; every case has its own
    fixed = dict(fixed)
    leaves = {k: v.clone().requires_grad_() for k, v in inputs.items()}
    outputs = fn(*leaves.values(), *fixed.values())
    if twin is not None:
        same = twin(*leaves.values(), *fixed.values())
        for ours, theirs in zip(outputs.values(), same if isinstance(same, tuple) else (same,)):
            assert torch.allclose(ours, theirs, rtol=1e-12, atol=1e-13), name
    upstream = {k: src.normal(*v.shape) for k, v in outputs.items() if v.requires_grad}
    torch.autograd.backward([outputs[k] for k in upstream], list(upstream.values()))
    put = lambda key, v: tensors.__setitem__(f"{name}.{key}", v.detach())
    for k, v in {**inputs, **fixed, **outputs}.items():
        put(k, v)
    for k, v in upstream.items():
        put(f"d{k}", v)
    for k, v in leaves.items():
        put(f"d{k}", v.grad)
    if numbers:
        constants[name] = numbers


# ---- linear: y = act(x wᵀ + b) ------------------------------------------------------------------------------------
ACT = dict(gelu_tanh=(gelu_tanh, lambda h: F.gelu(h, approximate="tanh")), gelu_erf=(gelu_erf, F.gelu),
           relu=(lambda h: h * (h > 0), F.relu))


def linear(name, bias, act):
    ours, theirs = ACT.get(act, (lambda h: h, lambda h: h))
    for seed in range(1000):
        src = Source(seed)
        inputs = dict(x=src.normal(2, 5, 6), w=src.normal(9, 6, std=0.5))
        if bias:
            inputs["b"] = src.normal(9, std=0.5)
        if act != "relu" or F.linear(*inputs.values()).abs().min() > 1e-2:  # keep away from the kink
            break
    else:
        raise AssertionError("no input without a kink")

    def fn(x, w, b=None):
        h = torch.einsum("btk,nk->btn", x, w)
        return dict(y=ours(h if b is None else h + b))

    case(name, fn, inputs, twin=lambda x, w, b=None: theirs(F.linear(x, w, b)))


for bias in (False, True):
    for act in (None, "gelu_tanh", "gelu_erf", "relu"):
        linear("linear" + ("_bias" if bias else "") + (f"_{act}" if act else ""), bias, act)

# ---- convolutions of pictures (N, H, W, C); weights (O, kh, kw, C), C on the side of the large pictures ---------------
def taps(x, w, stride, out):
    """Where each tap (ky, kx) of w meets x, padded: it and the slice of x."""
    for ky in range(w.shape[1]):
        for kx in range(w.shape[2]):
            rows, cols = (slice(k, k + stride * (n - 1) + 1, stride) for k, n in zip((ky, kx), out))
            yield w[:, ky, kx], x[:, rows, cols]


def conv2d(name, x, w, stride, padding):
    def fn(x, w, b):
        out = [(x.shape[i] + 2 * padding - w.shape[i]) // stride + 1 for i in (1, 2)]
        padded = F.pad(x, (0, 0, padding, padding, padding, padding))
        return dict(y=b + sum(torch.einsum("nijc,oc->nijo", part, tap) for tap, part in taps(padded, w, stride, out)))

    def twin(x, w, b):
        return F.conv2d(x.permute(0, 3, 1, 2), w.permute(0, 3, 1, 2), b, stride, padding).permute(0, 2, 3, 1)

    src = Source(70)
    case(name, fn, dict(x=src.normal(*x), w=src.normal(*w, std=0.3), b=src.normal(w[0])), twin=twin,
         stride=stride, padding=padding)


def conv_transpose2d(name, x, w, stride, padding, output_padding):
    def fn(x, w, b):
        size = [(x.shape[i] - 1) * stride + w.shape[i] + output_padding for i in (1, 2)]
        y = torch.zeros(x.shape[0], *size, w.shape[3], dtype=torch.float64)
        for tap, part in taps(y, w, stride, x.shape[1:3]):
            part += torch.einsum("nijo,oc->nijc", x, tap)
        return dict(y=b + y[:, padding : size[0] - padding, padding : size[1] - padding])

    def twin(x, w, b):
        y = F.conv_transpose2d(x.permute(0, 3, 1, 2), w.permute(0, 3, 1, 2), b, stride, padding, output_padding)
        return y.permute(0, 2, 3, 1)

    src = Source(71)
    case(name, fn, dict(x=src.normal(*x), w=src.normal(*w, std=0.3), b=src.normal(w[3])), twin=twin,
         stride=stride, padding=padding, output_padding=output_padding)


conv2d("conv2d", (2, 6, 7, 3), (5, 4, 4, 3), 2, 1)
conv2d("conv2d_one", (2, 8, 8, 1), (4, 3, 3, 1), 1, 1)
conv_transpose2d("conv_transpose2d", (2, 3, 4, 5), (5, 4, 4, 17), 2, 1, 0)
conv_transpose2d("conv_transpose2d_few", (2, 4, 4, 6), (6, 3, 3, 2), 2, 1, 1)

# ---- GELU, SwiGLU on their own ------------------------------------------------------------------------------------
grid = torch.linspace(-8, 8, 129, dtype=torch.float64)  # multiples of 1/8: both tails, zero, exact in f32
case("gelu_tanh", lambda x: dict(y=gelu_tanh(x)), dict(x=grid), twin=ACT["gelu_tanh"][1])
case("gelu_erf", lambda x: dict(y=gelu_erf(x)), dict(x=grid), twin=F.gelu)

src = Source(10)
case("swiglu", lambda gate, up: dict(y=gate / (1 + torch.exp(-gate)) * up),
     dict(gate=src.normal(2, 5, 7, std=2.0), up=src.normal(2, 5, 7)), twin=lambda g, u: F.silu(g) * u)


# ---- attention ----------------------------------------------------------------------------------------------------
def attention(q, k, v):
    """q (B,T,Hq,hd), k and v (B,T,Hkv,hd) -> y (B,T,Hq,hd). Query head h reads key/value head h // (Hq / Hkv)."""
    t, group = q.shape[1], q.shape[2] // k.shape[2]
    k, v = (x.repeat_interleave(group, dim=2) for x in (k, v))
    scores = torch.einsum("bihd,bjhd->bhij", q, k) / math.sqrt(q.shape[-1])
    future = torch.triu(torch.ones(t, t, dtype=torch.bool), diagonal=1)
    e = torch.exp(scores - scores.amax(-1, keepdim=True).detach()).masked_fill(future, 0.0)
    return dict(y=torch.einsum("bhij,bjhd->bihd", e / e.sum(-1, keepdim=True), v))


def sdpa(q, k, v):
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True).transpose(1, 2)


for name, b, t, hq, hkv, hd in (("attention", 2, 11, 4, 4, 8), ("attention_grouped", 2, 11, 4, 2, 8),
                                ("attention_long", 1, 70, 2, 1, 4)):
    src = Source(t + hkv)
    case(name, attention, dict(q=src.normal(b, t, hq, hd), k=src.normal(b, t, hkv, hd), v=src.normal(b, t, hkv, hd)),
         twin=sdpa)


# ---- norms --------------------------------------------------------------------------------------------------------
LN_EPS, RMS_EPS = 1e-5, 1e-6


def layernorm(x, w, b=None):
    m = x.mean(-1, keepdim=True)
    y = (x - m) / torch.sqrt(((x - m) ** 2).mean(-1, keepdim=True) + LN_EPS) * w
    return dict(y=y if b is None else y + b)


def rmsnorm(x, w):
    return dict(y=x / torch.sqrt((x**2).mean(-1, keepdim=True) + RMS_EPS) * w)


def after_residual(norm):
    """s = x + r; y = norm(s). Both are outputs: s carries the residual stream on, so it has an upstream gradient."""
    return lambda x, r, *wb: dict(s=x + r, **norm(x + r, *wb))


def norm_inputs(*names):
    src = Source(20 + len(names))
    make = dict(x=lambda: src.normal(2, 5, 12, mean=0.5), r=lambda: src.normal(2, 5, 12),
                w=lambda: src.normal(12, mean=1.0, std=0.3), b=lambda: src.normal(12, std=0.3))
    return {n: make[n]() for n in names}


torch_ln = lambda x, w, b=None: F.layer_norm(x, w.shape, w, b, LN_EPS)
torch_rms = lambda x, w: F.rms_norm(x, w.shape, w, RMS_EPS)
case("layernorm", layernorm, norm_inputs("x", "w", "b"), twin=torch_ln, eps=LN_EPS)
case("layernorm_nobias", layernorm, norm_inputs("x", "w"), twin=torch_ln, eps=LN_EPS)
case("layernorm_residual", after_residual(layernorm), norm_inputs("x", "r", "w", "b"), eps=LN_EPS,
     twin=lambda x, r, w, b: (x + r, torch_ln(x + r, w, b)))
case("rmsnorm", rmsnorm, norm_inputs("x", "w"), twin=torch_rms, eps=RMS_EPS)
case("rmsnorm_residual", after_residual(rmsnorm), norm_inputs("x", "r", "w"), eps=RMS_EPS,
     twin=lambda x, r, w: (x + r, torch_rms(x + r, w)))


# ---- losses over a vocabulary -------------------------------------------------------------------------------------
def log_softmax(z):
    z = z - z.amax(-1, keepdim=True).detach()
    return z - torch.log(torch.exp(z).sum(-1, keepdim=True))


def xent(logits, targets, weights):
    """loss = Σ weights·nll / Σ weights; nll is stored too, without an upstream gradient."""
    nll = -log_softmax(logits).gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    return dict(loss=(weights * nll).sum() / weights.sum(), nll=nll.detach())


def torch_xent(logits, targets, weights):
    nll = F.cross_entropy(logits, targets, reduction="none")
    return (nll * weights).sum() / weights.sum(), nll


N, D, V = 10, 6, 17
src = Source(30)
targets = src.ints(V, N)
weights = torch.tensor([1, 0, 0.5, 1, 2, 0, 0.25, 1, 1, 0], dtype=torch.float64)
x, w, logits = src.normal(N, D), src.normal(V, D), src.normal(N, V, std=2.0)
fixed = dict(targets=targets, weights=weights)
uniform = dict(targets=targets, weights=torch.ones(N, dtype=torch.float64))
linear_loss = lambda x, w, t, a: xent(x @ w.T, t, a)
torch_linear_loss = lambda x, w, t, a: torch_xent(F.linear(x, w), t, a)
case("xent", xent, dict(logits=logits), fixed, twin=torch_xent)
case("linear_xent", linear_loss, dict(x=x, w=w), fixed, twin=torch_linear_loss)
case("linear_xent_uniform", linear_loss, dict(x=x, w=w), uniform, twin=torch_linear_loss)


def token_logprob(x, w, targets):
    logp = log_softmax(x @ w.T)
    return dict(logp=logp.gather(-1, targets.unsqueeze(-1)).squeeze(-1), entropy=-(torch.exp(logp) * logp).sum(-1))


def torch_logprob(x, w, targets):
    d = torch.distributions.Categorical(logits=x @ w.T)
    return d.log_prob(targets), d.entropy()


case("token_logprob", token_logprob, dict(x=x, w=w), dict(targets=targets), twin=torch_logprob)

# ---- embedding ----------------------------------------------------------------------------------------------------
src = Source(40)
ids = src.ints(11, 3, 5)
ids[0, :3] = 4  # a token that occurs several times: its gradients add
case("embedding", lambda tok, pos, ids: dict(y=tok[ids] + pos[: ids.shape[1]]),
     dict(tok=src.normal(11, 6), pos=src.normal(7, 6)), dict(ids=ids),
     twin=lambda tok, pos, ids: F.embedding(ids, tok) + pos[:5])


# ---- rotary positions ---------------------------------------------------------------------------------------------
def plain_freq(hd, theta):
    return theta ** -(torch.arange(0, hd, 2, dtype=torch.float64) / hd)


def llama3_freq(hd, theta, factor, low, high, original):
    """Wavelengths above original/low are stretched by factor, those under original/high kept, a blend between."""
    f = plain_freq(hd, theta)
    wavelength = 2 * math.pi / f
    smooth = (original / wavelength - low) / (high - low)
    blend = (1 - smooth) * f / factor + smooth * f
    return torch.where(wavelength > original / low, f / factor, torch.where(wavelength < original / high, f, blend))


def rope(x, positions, inv_freq):
    """x (B,T,H,hd). HF's pairing: dimension i turns with i + hd/2 ("rotate_half"), not with its neighbour."""
    angle = positions.double()[:, None] * inv_freq  # (T, hd/2)
    cos, sin = torch.cos(angle)[:, None, :], torch.sin(angle)[:, None, :]
    a, b = x.chunk(2, dim=-1)
    return dict(y=torch.cat([a * cos - b * sin, b * cos + a * sin], -1))


def rotate_half(x, positions, inv_freq):
    """The same as transformers writes it: x·cos + rotate_half(x)·sin with doubled tables."""
    angle = torch.cat([positions.double()[:, None] * inv_freq] * 2, -1)[:, None, :]
    a, b = x.chunk(2, dim=-1)
    return x * torch.cos(angle) + torch.cat([-b, a], -1) * torch.sin(angle)


hd, start = 16, 1000
src = Source(50)
scaling = dict(factor=8.0, low=1.0, high=4.0, original=8192)
freqs = dict(rope=(0, plain_freq(hd, 1e4), dict(theta=1e4)),
             rope_offset=(start, plain_freq(hd, 1e4), dict(theta=1e4, start=start)),
             rope_llama3=(start, llama3_freq(hd, 1e4, **scaling), dict(theta=1e4, start=start, **scaling)))
ratio = plain_freq(hd, 1e4) / freqs["rope_llama3"][1]
assert (ratio == 1).any() and (ratio == 8).any() and ((ratio > 1) & (ratio < 8)).any()  # all three ranges occur
for name, (start, freq, numbers) in freqs.items():
    case(name, rope, dict(x=src.normal(2, 6, 3, hd)), dict(positions=start + torch.arange(6), inv_freq=freq),
         twin=rotate_half, **numbers)

# ---- AdamW, clipping ----------------------------------------------------------------------------------------------
src = Source(60)
numbers = dict(lr=1e-2, beta1=0.9, beta2=0.99, eps=1e-8, weight_decay=0.1)
w0, grads = src.normal(13), src.normal(5, 13, std=0.5)
w = w0.clone().requires_grad_()
opt = torch.optim.AdamW([w], lr=1e-2, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.1, foreach=False, fused=False)
m, v, ours, path = torch.zeros_like(w0), torch.zeros_like(w0), w0.clone(), []
for t, g in enumerate(grads, start=1):
    w.grad = g.clone()
    opt.step()
    path.append(w.detach().clone())
    m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g**2
    step = (m / (1 - 0.9**t)) / (torch.sqrt(v / (1 - 0.99**t)) + 1e-8)
    ours = ours * (1 - 1e-2 * 0.1) - 1e-2 * step
    assert torch.allclose(ours, path[-1], rtol=1e-12)
tensors.update({"adamw.w0": w0, "adamw.grads": grads, "adamw.w": torch.stack(path), "adamw.m": m, "adamw.v": v})
constants["adamw"] = numbers

finish("ops", tensors, dict(what="single operations, all float64; integers are i64", constants=constants))
