"""Penalties on the gradients of small discriminators in float64, by torch's create_graph.

    python tests/reference/penalty.py            writes tests/fixtures/penalty.safetensors
    python tests/reference/penalty.py --check    recomputes and compares with the committed file

Pictures are (N, H, W, C) and weights of convolutions (O, kh, kw, I), as kiln holds them. See README.md.
"""
import torch
import torch.nn.functional as F

from fixture import Source, finish

tensors = {}
slope, eps = torch.tensor(0.2).item(), torch.tensor(1e-5).item()  # as f32 has them
leaky = lambda x: F.leaky_relu(x, slope)
to_torch = lambda x: x.permute(0, 3, 1, 2)
to_kiln = lambda x: x.permute(0, 2, 3, 1)
unit = lambda x: x / x.norm().clamp(min=1e-12)


def spectral(w, u):
    """One power iteration from u, then w / (u·w·v)."""
    m = w.reshape(w.shape[0], -1)
    with torch.no_grad():
        v = unit(m.T @ u)
        u = unit(m @ v)
    return w / (u @ m @ v)


def norm(kind, x, g, b):
    if kind == "group":
        return F.group_norm(x, 2, g, b, eps=eps)
    return F.batch_norm(x, torch.zeros_like(g), torch.ones_like(g), g, b, training=True, eps=eps)


def discriminator(kind, p, x):
    """(N, 8, 8, 2) to (N): two convolutions of 4x4 by 2, and a linear layer."""
    weight = lambda name: spectral(p[name + ".weight"], p[name + ".weight_u"]) if kind == "spectral" else p[name + ".weight"]
    conv = lambda name, x: F.conv2d(x, weight(name).permute(0, 3, 1, 2), p[name + ".bias"], 2, 1)
    last = {"smooth": (torch.tanh, lambda x: F.softplus(x, threshold=1e9)), "fused": (F.silu, torch.sigmoid), "relu": (F.relu, leaky)}
    f = last.get(kind, (leaky, leaky))
    x = f[0](conv("0", to_torch(x)))
    x = conv("1", x)
    if kind in ("group", "batch"):
        x = norm(kind, x, p["norm.weight"], p["norm.bias"])
    x = f[1](x)
    return F.linear(to_kiln(x).flatten(1), weight("head"), p["head.bias"])[:, 0]


def case(kind):
    src = Source(sum(map(ord, kind)))
    x = src.normal(3, 8, 8, 2)
    p = {"0.weight": src.normal(4, 4, 4, 2, std=0.25), "0.bias": src.normal(4, std=0.1)}
    p |= {"1.weight": src.normal(6, 4, 4, 4, std=0.2), "1.bias": src.normal(6, std=0.1)}
    p |= {"head.weight": src.normal(1, 24, std=0.3), "head.bias": src.normal(1, std=0.1)}
    fixed = set()
    if kind in ("group", "batch"):
        p |= {"norm.weight": src.normal(6, mean=1.0, std=0.3), "norm.bias": src.normal(6, std=0.3)}
    if kind == "spectral":
        p |= {n + ".weight_u": unit(src.normal(p[n + ".weight"].shape[0])).float().double() for n in ("0", "1", "head")}
        fixed = {n for n in p if n.endswith(".weight_u")}
    for name, value in p.items():
        tensors[f"{kind}.{name}"] = value.clone()
    tensors[f"{kind}.x"] = x
    free = {n: v.requires_grad_() for n, v in p.items() if n not in fixed}
    for penalty in ("r1", "gp"):
        at = x.clone().requires_grad_()
        (g,) = torch.autograd.grad(discriminator(kind, p, at).sum(), at, create_graph=True)
        squares = g.flatten(1).square().sum(1)
        value = 0.5 * 10.0 * squares.mean() if penalty == "r1" else 10.0 * (squares.sqrt() - 1).square().mean()
        tensors[f"{kind}.{penalty}"] = value.detach().reshape(1)
        for name, grad in zip(free, torch.autograd.grad(value, list(free.values()), allow_unused=True)):
            tensors[f"{kind}.{penalty}.{name}"] = torch.zeros_like(p[name]) if grad is None else grad


for kind in ("leaky", "relu", "smooth", "fused", "spectral", "group", "batch"):
    case(kind)
finish("penalty", tensors, dict(what="R1 (gamma 10) and gradient penalty (lambda 10), all float64", slope=slope, eps=eps))
