"""A GPT of GPT-2's kind, as a PyTorch user would write it: the peer of kiln's `Gpt`.

Pre-LN, learned positions, causal scaled_dot_product_attention, head tied to the token embedding, no dropout.
"""
import json
import math

import torch.nn as nn
import torch.nn.functional as F


CONFIGS = {
    "tiny": dict(vocab=65, layers=6, heads=6, d=384, positions=256, bias=False, batch=12, context=256),
    "nano": dict(vocab=8192, layers=4, heads=4, d=256, positions=256, bias=True, batch=16, context=256),
    "gpt2": dict(vocab=50304, layers=12, heads=12, d=768, positions=1024, bias=True, batch=4, context=256),
}
SIZES = ("vocab", "positions", "layers", "heads", "d", "bias", "gelu")


def config(word):
    """A name, or the same as JSON -> name, all numbers."""
    name, numbers = (word, CONFIGS[word]) if word in CONFIGS else ("given", json.loads(word))
    return name, dict(gelu="tanh") | numbers


def gpt(config):
    return GPT(**{key: config[key] for key in SIZES})


class Block(nn.Module):
    def __init__(self, d, heads, bias, gelu):
        super().__init__()
        self.heads, self.gelu = heads, gelu
        self.ln_1, self.ln_2 = nn.LayerNorm(d, bias=bias), nn.LayerNorm(d, bias=bias)
        self.c_attn, self.attn_proj = nn.Linear(d, 3 * d, bias=bias), nn.Linear(d, d, bias=bias)
        self.c_fc, self.mlp_proj = nn.Linear(d, 4 * d, bias=bias), nn.Linear(4 * d, d, bias=bias)

    def forward(self, x):  # (B,T,C) -> (B,T,C)
        qkv = self.c_attn(self.ln_1(x)).chunk(3, dim=-1)
        q, k, v = (s.unflatten(-1, (self.heads, -1)).transpose(1, 2) for s in qkv)  # (B,H,T,hd)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(-2)
        x = x + self.attn_proj(y)
        return x + self.mlp_proj(F.gelu(self.c_fc(self.ln_2(x)), approximate=self.gelu))


class GPT(nn.Module):
    """gelu: "tanh" or "none" (erf), torch's names."""

    def __init__(self, vocab, positions, layers, heads, d, bias, gelu):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocab, d), nn.Embedding(positions, d)
        self.h = nn.ModuleList(Block(d, heads, bias, gelu) for _ in range(layers))
        self.ln_f = nn.LayerNorm(d, bias=bias)
        for name, p in self.named_parameters():
            if p.dim() == 2:
                nn.init.normal_(p, std=0.02 / math.sqrt(2 * layers) if "_proj." in name else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(p)

    def forward(self, x, y, reduction="mean"):
        """Token ids x and targets y, (B,T) -> cross-entropy over all positions."""
        h = self.wte(x) + self.wpe.weight[: x.shape[1]]
        for block in self.h:
            h = block(h)
        logits = F.linear(self.ln_f(h), self.wte.weight)
        return F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction=reduction)

    def decay_groups(self, weight_decay):
        """Decay on every matrix, embeddings included; none on norms and biases."""
        return [dict(params=[p for p in self.parameters() if p.dim() >= 2], weight_decay=weight_decay),
                dict(params=[p for p in self.parameters() if p.dim() < 2], weight_decay=0.0)]
