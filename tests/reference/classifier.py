"""classifier.safetensors: the classifier that judges pictures in float64: features, logits, loss, gradients, ten steps.

    python tests/reference/classifier.py [--check]

Its weights are sines of their places, so that none need be stored; of the largest gradient only sums are. See README.md.
"""
import torch
import torch.nn.functional as F

from fixture import Source, finish, to_kiln

B, SHAPE, CLASSES, FEATURES, STEPS, LR = 5, (18, 13, 2), 3, 128, 10, 1e-3
h, w, c = SHAPE
# In kiln's order and layout: (O, kh, kw, I) and (out, in), the picture flattened as (H, W, C).
shapes = {"conv.0.weight": (32, 3, 3, c), "conv.0.bias": (32,), "conv.1.weight": (64, 3, 3, 32), "conv.1.bias": (64,),
          "fc.weight": (FEATURES, 5 * 4 * 64), "fc.bias": (FEATURES,), "head.weight": (CLASSES, FEATURES)}


def initial(place, shape):
    """sin(0.37 i + place) over the root of the fan-in, rounded to f32."""
    n = torch.Size(shape).numel()
    fan = n // shape[0] if len(shape) > 1 else 64
    return (torch.sin(0.37 * torch.arange(1, n + 1, dtype=torch.float64) + place) / fan**0.5).float().double().view(shape)


def model(p, x):
    conv = lambda x, name: F.relu(F.conv2d(x, p[f"{name}.weight"].permute(0, 3, 1, 2), p[f"{name}.bias"], 2, 1))
    x = to_kiln(conv(conv(x, "conv.0"), "conv.1")).flatten(1)
    features = F.relu(F.linear(x, p["fc.weight"], p["fc.bias"]))
    return features, features @ p["head.weight"].T


src, tensors, losses = Source(31), {}, []
put = lambda key, x: tensors.__setitem__(key, x.detach().contiguous().clone())
xs, labels = src.uniform(STEPS, B, c, h, w), src.ints(CLASSES, STEPS, B)
put("x", torch.stack([to_kiln(x) for x in xs]).float())
put("labels", labels)
p = {name: initial(i, shape).requires_grad_() for i, (name, shape) in enumerate(shapes.items())}
optimizer = torch.optim.Adam(p.values(), lr=LR, betas=(0.9, 0.999), eps=1e-8)
for i in range(STEPS):
    optimizer.zero_grad()
    features, logits = model(p, xs[i])
    loss = F.cross_entropy(logits, labels[i])
    loss.backward()
    losses.append(loss.detach())
    if i == 0:
        for key, value in (("features", features), ("logits", logits), ("loss", loss)):
            put(key, value)
        for name, weight in p.items():
            if weight.numel() < 2000:
                put(f"grad.{name}", weight.grad)
            else:
                rows = weight.grad.flatten(1)
                put(f"grad.{name}", torch.cat([rows.sum(1), rows.sum(0)]))
    optimizer.step()
put("train.losses", torch.stack(losses))
print(f"losses {losses[0]:.3f} to {losses[-1]:.3f}")
finish("classifier", tensors, dict(batch=B, shape=SHAPE, classes=CLASSES, steps=STEPS, lr=LR))
