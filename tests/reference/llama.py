"""Fixtures of a whole Llama in float64: logits, loss, every gradient, ten steps of AdamW and of Muon.

    python tests/reference/llama.py            writes tests/fixtures/llama*.safetensors
    python tests/reference/llama.py --check    recomputes and compares with the committed files

The model is spelled out with elementary operations on a dictionary of tensors, which have the names and the layout of a
Hugging Face Llama checkpoint; where `transformers` is installed, its LlamaForCausalLM (in float64) must give the same
logits. Muon is written out from the published algorithm in float64, with Newton and Schulz's iteration on the whole of
each stored matrix (q, k, v, gate and up apart), and compared loosely with torch.optim.Muon, which computes it in bf16.
"""
import math

import torch
import torch.nn.functional as F

from fixture import Source, finish

VOCAB, CONTEXT, LAYERS, HEADS, KV_HEADS, D, HIDDEN = 37, 64, 2, 4, 2, 24, 40  # head size 6
B, T, STEPS = 3, 13, 10
EPS = 1e-5
ADAMW = dict(lr=1e-2, betas=(0.9, 0.95), eps=1e-8)
MUON_MOMENTUM, QUINTIC = 0.95, (3.4445, -4.7750, 2.0315)
WEIGHT_DECAY, CLIP = 0.1, 1.0
LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=40)

NO_DECAY = ("model.embed_tokens.weight", "lm_head.weight")  # besides everything one-dimensional


def init(src, tied):
    """Larger than Llama's init, and with no ones, so that every term of every gradient matters."""
    p = {"model.embed_tokens.weight": src.normal(VOCAB, D, std=0.3)}
    norm = lambda name: p.update({f"{name}.weight": src.normal(D, mean=1.0, std=0.2)})
    linear = lambda name, n_in, n_out: p.update({f"{name}.weight": src.normal(n_out, n_in, std=0.2)})
    kv = KV_HEADS * D // HEADS
    for i in range(LAYERS):
        at = f"model.layers.{i}"
        norm(f"{at}.input_layernorm")
        linear(f"{at}.self_attn.q_proj", D, D)
        linear(f"{at}.self_attn.k_proj", D, kv)
        linear(f"{at}.self_attn.v_proj", D, kv)
        linear(f"{at}.self_attn.o_proj", D, D)
        norm(f"{at}.post_attention_layernorm")
        linear(f"{at}.mlp.gate_proj", D, HIDDEN)
        linear(f"{at}.mlp.up_proj", D, HIDDEN)
        linear(f"{at}.mlp.down_proj", HIDDEN, D)
    norm("model.norm")
    if not tied:
        p["lm_head.weight"] = src.normal(VOCAB, D, std=0.3)
    return p


def frequencies(theta, scaling):
    dim = D // HEADS
    f = theta ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    if scaling is None:
        return f
    # Waves longer than original / low are divided by the factor, those shorter than original / high kept.
    waves = scaling["original_max_position_embeddings"] * f / (2 * math.pi)
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    smooth = ((waves - low) / (high - low)).clamp(0, 1)
    return (1 - smooth) * f / scaling["factor"] + smooth * f


def rms_norm(x, w):
    return x / torch.sqrt((x**2).mean(-1, keepdim=True) + EPS) * w


def logits_of(p, x, rope):
    """x (B,T) of token ids -> logits (B,T,V)."""
    t = x.shape[1]
    linear = lambda name, h: h @ p[f"{name}.weight"].T
    heads = lambda h, n: h.unflatten(-1, (n, -1)).transpose(1, 2)  # (B,n,T,hd)
    angles = torch.arange(t, dtype=torch.float64)[:, None] * frequencies(*rope)  # (T,hd/2)
    cos, sin = (f(angles).to(p["model.norm.weight"].dtype) for f in (torch.cos, torch.sin))

    def turn(h):
        a, b = h.chunk(2, -1)
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

    future = torch.triu(torch.ones(t, t, dtype=torch.bool), diagonal=1)
    h = p["model.embed_tokens.weight"][x]
    for i in range(LAYERS):
        at = f"model.layers.{i}"
        n = rms_norm(h, p[f"{at}.input_layernorm.weight"])
        q = turn(heads(linear(f"{at}.self_attn.q_proj", n), HEADS))
        k = turn(heads(linear(f"{at}.self_attn.k_proj", n), KV_HEADS))
        v = heads(linear(f"{at}.self_attn.v_proj", n), KV_HEADS)
        k, v = (s.repeat_interleave(HEADS // KV_HEADS, dim=1) for s in (k, v))
        scores = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).masked_fill(future, -math.inf)
        y = (torch.softmax(scores, -1) @ v).transpose(1, 2).flatten(-2)
        h = h + linear(f"{at}.self_attn.o_proj", y)
        n = rms_norm(h, p[f"{at}.post_attention_layernorm.weight"])
        gate, up = linear(f"{at}.mlp.gate_proj", n), linear(f"{at}.mlp.up_proj", n)
        h = h + linear(f"{at}.mlp.down_proj", gate / (1 + torch.exp(-gate)) * up)
    return rms_norm(h, p["model.norm.weight"]) @ p.get("lm_head.weight", p["model.embed_tokens.weight"]).T


def loss_of(p, x, y, rope):
    """Mean over all positions of -log softmax(logits)[y], and the logits."""
    logits = logits_of(p, x, rope)
    return F.cross_entropy(logits.flatten(0, 1), y.flatten()), logits


def gradients(p, x, y, rope):
    p = {k: v.clone().requires_grad_() for k, v in p.items()}
    loss, logits = loss_of(p, x, y, rope)
    loss.backward()
    grads = {k: v.grad for k, v in p.items()}
    return loss.detach(), logits.detach(), grads, torch.sqrt(sum((g**2).sum() for g in grads.values()))


def orthogonalise(u):
    """Newton and Schulz, five times, on the side with fewer rows; in u's own precision."""
    a, b, c = QUINTIC
    x = u.T if u.shape[0] > u.shape[1] else u
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(5):
        s = x @ x.T
        x = a * x + (b * s + c * s @ s) @ x
    return x.T if u.shape[0] > u.shape[1] else x


class Muon(torch.optim.Optimizer):
    def __init__(self, params, lr, scale):
        super().__init__(params, dict(lr=lr, scale=scale))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for w in group["params"]:
                m = self.state[w].setdefault("momentum_buffer", torch.zeros_like(w))
                m.mul_(MUON_MOMENTUM).add_(w.grad, alpha=1 - MUON_MOMENTUM)
                u = orthogonalise(MUON_MOMENTUM * m + (1 - MUON_MOMENTUM) * w.grad)
                rows, cols = w.shape
                scale = {"original": max(1, rows / cols) ** 0.5, "match_rms_adamw": 0.2 * max(rows, cols) ** 0.5}
                w.mul_(1 - group["lr"] * WEIGHT_DECAY).sub_(u, alpha=group["lr"] * scale[group["scale"]])


def optimizers(p, muon, torchs):
    """AdamW for all, or Muon with `muon` = (lr, scale) for the matrices of blocks; `torchs`: PyTorch's own Muon."""
    matrices = [v for k, v in p.items() if v.dim() == 2 and k not in NO_DECAY]
    rest = [v for k, v in p.items() if not (v.dim() == 2 and k not in NO_DECAY)]
    groups = [dict(params=rest, weight_decay=0.0)]
    if muon is None:
        groups.append(dict(params=matrices, weight_decay=WEIGHT_DECAY))
    adamw = torch.optim.AdamW(groups, foreach=False, fused=False, **ADAMW)
    if muon is None:
        return [adamw]
    lr, scale = muon
    if torchs:
        return [adamw, torch.optim.Muon(matrices, lr=lr, weight_decay=WEIGHT_DECAY, momentum=MUON_MOMENTUM,
                                        nesterov=True, ns_coefficients=QUINTIC, ns_steps=5, adjust_lr_fn=scale)]
    return [adamw, Muon(matrices, lr, scale)]


def train(p, xs, ys, rope, muon, torchs=False):
    """STEPS steps, one batch each -> losses before each update, gradient norms before clipping, final weights."""
    p = {k: v.clone().requires_grad_() for k, v in p.items()}
    opts = optimizers(p, muon, torchs)
    losses, norms = [], []
    for x, y in zip(xs, ys):
        [opt.zero_grad() for opt in opts]
        loss, _ = loss_of(p, x, y, rope)
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(p.values(), CLIP, foreach=False))
        [opt.step() for opt in opts]
        losses.append(loss.detach())
    return torch.stack(losses), torch.stack(norms), {k: v.detach() for k, v in p.items()}


def check_against_transformers(p, x, logits, rope, tied):
    try:
        from transformers import LlamaConfig, LlamaForCausalLM
    except ImportError:
        return print("  transformers is not installed: logits not compared with LlamaForCausalLM")
    theta, scaling = rope
    config = LlamaConfig(
        vocab_size=VOCAB, hidden_size=D, intermediate_size=HIDDEN, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS, max_position_embeddings=CONTEXT, rms_norm_eps=EPS, rope_theta=theta,
        rope_scaling=scaling, tie_word_embeddings=tied, attn_implementation="eager")
    model = LlamaForCausalLM(config).double()
    missing, unexpected = model.load_state_dict(p, strict=False)
    assert not unexpected and set(missing) <= ({"lm_head.weight"} if tied else set()), (missing, unexpected)
    model.tie_weights()
    off = (model(x).logits - logits).abs().max().item()
    # transformers computes the softmax and the norms in float32 whatever the dtype of the model.
    print(f"  LlamaForCausalLM in float64: logits off by {off:.0e}, the largest is {logits.abs().max():.1f}")
    assert off < 1e-5


def about(what, rope, tied):
    theta, scaling = rope
    return dict(
        what=what, layout="as Hugging Face's Llama checkpoints: linear weights (out, in)", tied=tied, eps=EPS,
        vocab=VOCAB, context=CONTEXT, layers=LAYERS, heads=HEADS, kv_heads=KV_HEADS, d=D, hidden=HIDDEN,
        rope_theta=theta, rope_scaling=scaling, lr=ADAMW["lr"], beta1=ADAMW["betas"][0], beta2=ADAMW["betas"][1],
        adamw_eps=ADAMW["eps"], weight_decay=WEIGHT_DECAY, clip=CLIP, muon_momentum=MUON_MOMENTUM,
    )


def whole(name, seed, rope, tied, muon):
    src = Source(seed)
    p = init(src, tied)
    x, y = src.ints(VOCAB, B, T), src.ints(VOCAB, B, T)
    xs, ys = src.ints(VOCAB, STEPS, B, T), src.ints(VOCAB, STEPS, B, T)
    loss, logits, grads, norm = gradients(p, x, y, rope)
    runs = {"train": train(p, xs, ys, rope, None), "muon": train(p, xs, ys, rope, muon)}

    print(f"{name}: loss {loss:.6f}, norm {norm:.4f}; norms {[round(n.item(), 3) for n in runs['train'][1]]}")
    check_against_transformers(p, x, logits, rope, tied)
    single = {k: v.float() for k, v in p.items()}
    off = lambda ours, exact: (ours - exact).abs().max().item()
    _, _, grads32, _ = gradients(single, x, y, rope)
    print("  torch in f32: gradients off by "
          f"{max(off(grads32[k], g) / g.abs().max().item() for k, g in grads.items()):.0e} of a tensor's largest")
    for kind, setting in (("train", None), ("muon", muon)):
        losses, _, final = runs[kind]
        losses32, _, final32 = train(single, xs, ys, rope, setting)
        worst = sorted((off(final32[k], v), k) for k, v in final.items())[:-4:-1]
        print(f"  {kind} in f32: losses off by {off(losses32 / losses, torch.ones(STEPS)):.0e} relative; final weights "
              "absolutely, the worst three tensors:", ", ".join(f"{k} {d:.0e}" for d, k in worst))
    theirs = train(p, xs, ys, rope, muon, torchs=True)
    moved = max(off(runs["muon"][2][k], v) for k, v in p.items())
    apart = max(off(theirs[2][k], v) for k, v in runs["muon"][2].items())
    print(f"  torch.optim.Muon: final weights off by {apart:.0e}, they moved by up to {moved:.0e}")
    assert apart < 0.1 * moved

    finish(name, {
        **{f"init.{k}": v.float() for k, v in p.items()},
        "x": x, "y": y, "logits": logits, "loss": loss, "grad_norm": norm,
        **{f"grad.{k}": v for k, v in grads.items()},
        "train.x": xs, "train.y": ys,
        **{f"{kind}.losses": losses for kind, (losses, _, _) in runs.items()},
        **{f"{kind}.grad_norms": norms for kind, (_, norms, _) in runs.items()},
        **{f"final.{k}": v.float() for k, v in runs["train"][2].items()},
        **{f"muon_final.{k}": v.float() for k, v in runs["muon"][2].items()},
    }, about(f"Llama, {'tied' if tied else 'untied'}; muon: lr, scale = {muon}", rope, tied))


if __name__ == "__main__":
    # Theta 100: of the three wavelengths one is short, one between, one long.
    whole("llama", 11, (10_000.0, None), tied=False, muon=(1e-2, "match_rms_adamw"))
    whole("llama-tied-scaled", 13, (100.0, LLAMA3), tied=True, muon=(2e-2, "original"))
