"""vqvae.safetensors: a vector-quantised autoencoder in float64, whole: loss, parts, gradients, codebook, ten steps.

    python tests/reference/vqvae.py [--check]

See README.md.
"""
import torch
import torch.nn.functional as F

from fixture import Source, finish, philox, to_kiln

B, SHAPE, CHANNELS, CODES, WIDTH, STEPS, LR, SEED = 3, (8, 12, 1), (3, 4), 6, 5, 10, 1e-2, 9
BETA, DECAY, DEAD = 0.25, 0.75, 1.0

src = Source(27)
h, w, c = SHAPE
kernel = lambda o, i, k: src.normal(o, i, k, k, std=(i * k * k) ** -0.5)
bias = lambda n: src.normal(n, std=0.1)
a, b = CHANNELS
sizes = {"enc.0": (a, c, 4), "enc.1": (b, a, 4), "enc.out": (WIDTH, b, 1), "dec.in": (b, WIDTH, 3), "dec.0": (b, a, 4), "dec.1": (a, c, 4)}
outs = {"enc.0": a, "enc.1": b, "enc.out": WIDTH, "dec.in": b, "dec.0": a, "dec.1": c}
init = {}
for name, size in sizes.items():
    init |= {f"{name}.weight": kernel(*size), f"{name}.bias": bias(outs[name])}
codebook = {"weight": src.normal(CODES, WIDTH, std=0.3), "counts": src.uniform(CODES) * 4, "sums": src.normal(CODES, WIDTH)}


def row(code, rows, step):
    """At which row a dead code begins anew: a number of the pass's first latent stream."""
    bits = philox((SEED, 0), [[code // 4], [7 << 24], [step << 16], [0]])[code % 4][0]
    return int(bits) * rows >> 32


def loss(p, x, step):
    """The loss and its parts; moves the codebook."""
    layer = lambda name: (p[f"{name}.weight"], p[f"{name}.bias"])
    z = x
    for i in (0, 1):
        z = F.relu(F.conv2d(z, *layer(f"enc.{i}"), 2, 1))
    z = to_kiln(F.conv2d(z, *layer("enc.out"))).flatten(0, 2)
    distances = ((z[:, None] - codebook["weight"][None]) ** 2).sum(2).detach()
    best = distances.topk(2, 1, largest=False).values
    margin.append((best[:, 1] - best[:, 0]).min().item())
    ids = distances.argmin(1)
    q = codebook["weight"][ids]
    through = z + (q - z).detach()
    y = through.view(B, h // 4, w // 4, WIDTH).permute(0, 3, 1, 2)
    y = F.relu(F.conv2d(y, *layer("dec.in"), 1, 1))
    y = F.conv_transpose2d(F.relu(F.conv_transpose2d(y, *layer("dec.0"), 2, 1)), *layer("dec.1"), 2, 1)
    reconstruction = F.binary_cross_entropy_with_logits(y, x, reduction="sum") / B
    commitment = ((z - q) ** 2).sum() / B
    onehot, flat = F.one_hot(ids, CODES).double(), z.detach()
    counts = DECAY * codebook["counts"] + (1 - DECAY) * onehot.sum(0)
    sums = DECAY * codebook["sums"] + (1 - DECAY) * onehot.T @ flat
    for code in torch.nonzero(counts < DEAD).flatten().tolist():
        counts[code], sums[code] = 1.0, flat[row(code, len(flat), step)]
        anew.append(code)
    codebook.update(weight=sums / counts[:, None], counts=counts, sums=sums)
    return reconstruction + BETA * commitment, reconstruction, commitment, ids.view(B, -1)


margin, anew, tensors, losses = [], [], {}, []
put = lambda key, x: tensors.__setitem__(key, x.detach().contiguous().clone())
xs = src.uniform(STEPS, B, c, h, w)
put("x", torch.stack([to_kiln(x) for x in xs]))
stored = lambda x: to_kiln(x) if x.dim() == 4 else x
p = {k: v.clone().requires_grad_() for k, v in init.items()}
for k, v in p.items():
    put(f"init.{k}", stored(v).float())
for k, v in codebook.items():
    put(f"init.codebook.{k}", v.float())
    codebook[k] = v.float().double()
optimizer = torch.optim.Adam(p.values(), lr=LR, betas=(0.9, 0.999), eps=1e-8)
for i in range(STEPS):
    optimizer.zero_grad()
    parts = loss(p, xs[i], i)
    parts[0].backward()
    losses.append(parts[0].detach())
    if i == 0:
        for key, value in zip(("loss", "reconstruction", "commitment", "ids"), parts):
            put(key, value)
        for k, v in p.items():
            put(f"grad.{k}", stored(v.grad))
        for k, v in codebook.items():
            put(f"next.codebook.{k}", v)
    optimizer.step()
put("train.losses", torch.stack(losses))
for k, v in codebook.items():
    put(f"final.codebook.{k}", v)
print(f"losses {losses[0]:.3f} to {losses[-1]:.3f}; codes begun anew {anew}; nearest margin {min(margin):.1e}")
assert min(margin) > 1e-4, "too near a tie for f32"
finish("vqvae", tensors, dict(batch=B, codes=CODES, width=WIDTH, steps=STEPS, lr=LR, seed=SEED, beta=BETA, decay=DECAY, dead=DEAD))
