"""vae.safetensors: variational autoencoders in float64, whole: loss, gradients, the importance-weighted bound, ten steps.

    python tests/reference/vae.py [--check]

The models are torch's functions over named parameters; labels are one-hot vectors beside x and beside z. See README.md.
"""
import math

import torch
import torch.nn.functional as F

from fixture import Source, finish, noise, to_kiln

B, LATENT, CLASSES, STEPS, LR, SEED, K = 5, 3, 4, 10, 1e-2, 9, 4
tensors = {}


class Vae:
    def __init__(self, src, shape, channels, hidden, std=None, labels=False):
        self.shape, self.channels, self.std = shape, channels, std
        h, w, c = shape
        widths = [c, *channels]
        self.grid = (widths[-1], h >> len(channels), w >> len(channels))
        flat = math.prod(self.grid)
        fan = lambda *s: src.normal(*s, std=math.prod(s[1:]) ** -0.5)
        bias = lambda n: src.normal(n, std=0.1)
        p = {}
        for i, (a, b) in enumerate(zip(widths, widths[1:])):
            p |= {f"enc.{i}.weight": fan(b, a, 4, 4), f"enc.{i}.bias": bias(b)}
        p |= {"enc.fc.weight": fan(hidden, flat), "enc.fc.bias": bias(hidden)}
        for part in ("mu", "logvar"):
            p |= {f"enc.{part}.weight": fan(LATENT, hidden), f"enc.{part}.bias": bias(LATENT)}
        p |= {"dec.fc.weight": fan(hidden, LATENT), "dec.fc.bias": bias(hidden)}
        p |= {"dec.out.weight": fan(flat, hidden), "dec.out.bias": bias(flat)}
        for i, (a, b) in enumerate(zip(widths[:0:-1], widths[-2::-1])):
            p |= {f"dec.{i}.weight": fan(a, b, 4, 4), f"dec.{i}.bias": bias(b)}
        if labels:
            p |= {f"{half}.labels.weight": src.normal(CLASSES, hidden, std=0.5) for half in ("enc", "dec")}
        self.p = p

    def hidden(self, p, half, x, labels):
        w, b = p[f"{half}.fc.weight"], p[f"{half}.fc.bias"]
        if labels is not None:
            x = torch.cat([x, F.one_hot(labels, CLASSES).double()], 1)
            w = torch.cat([w, p[f"{half}.labels.weight"].T], 1)
        return F.relu(F.linear(x, w, b))

    def encode(self, p, x, labels):
        for i in range(len(self.channels)):
            x = F.relu(F.conv2d(x, p[f"enc.{i}.weight"], p[f"enc.{i}.bias"], 2, 1))
        h = self.hidden(p, "enc", x.flatten(1), labels)
        return [F.linear(h, p[f"enc.{k}.weight"], p[f"enc.{k}.bias"]) for k in ("mu", "logvar")]

    def decode(self, p, z, labels):
        x = F.linear(self.hidden(p, "dec", z, labels), p["dec.out.weight"], p["dec.out.bias"])
        x = x.view(-1, *self.grid)
        for i in range(len(self.channels)):
            x = F.conv_transpose2d(F.relu(x), p[f"dec.{i}.weight"], p[f"dec.{i}.bias"], 2, 1)
        return x

    def nll(self, decoded, x):
        """-log p(x|z) of each picture."""
        if self.std is None:
            return F.binary_cross_entropy_with_logits(decoded, x, reduction="none").flatten(1).sum(1)
        return -torch.distributions.Normal(decoded, torch.tensor(self.std).double()).log_prob(x).flatten(1).sum(1)

    def constant(self):
        return 0.0 if self.std is None else math.prod(self.shape) * (math.log(self.std) + 0.5 * math.log(2 * math.pi))

    def loss(self, p, x, labels, beta, free, step):
        mu, v = self.encode(p, x, labels)
        z = mu + (0.5 * v).exp() * noise(mu.shape, SEED, step)
        normal = torch.distributions.Normal
        kl = torch.distributions.kl_divergence(normal(mu, (0.5 * v).exp()), normal(0.0, 1.0)).mean(0)
        reconstruction, floored = self.nll(self.decode(p, z, labels), x).mean() - self.constant(), kl.clamp(min=free).sum()
        return reconstruction + beta * floored, reconstruction, floored, kl

    def iwae(self, p, x, labels, k):
        mu, v = self.encode(p, x, labels)
        std, normal, logs = (0.5 * v).exp(), torch.distributions.Normal, []
        for i in range(k):
            z = mu + std * noise(mu.shape, SEED, 0, i)
            prior, posterior = normal(0.0, 1.0).log_prob(z).sum(1), normal(mu, std).log_prob(z).sum(1)
            logs.append(prior - posterior - self.nll(self.decode(p, z, labels), x))
        return torch.logsumexp(torch.stack(logs), 0) - math.log(k)

    def stored(self, name, x):
        """A parameter as kiln has it: channels last, where a layer reads or makes pictures too."""
        c, h, w = self.grid
        if x.dim() == 4:
            return to_kiln(x)
        if name == "enc.fc.weight":
            return x.view(-1, c, h, w).permute(0, 2, 3, 1).reshape(x.shape)
        if name.startswith("dec.out."):
            return x.view(c, h, w, -1).permute(1, 2, 0, 3).reshape(x.shape)
        return x


def case(name, seed, shape, channels, hidden, beta, free, std=None, labels=False):
    src = Source(seed)
    model = Vae(src, shape, channels, hidden, std, labels)
    h, w, c = shape
    xs = src.uniform(STEPS, B, c, h, w)
    ys = src.ints(CLASSES, STEPS, B)
    y = lambda i: ys[i] if labels else None
    put = lambda key, x: tensors.__setitem__(f"{name}.{key}", x.detach().contiguous().clone())
    put("x", torch.stack([to_kiln(x) for x in xs]))
    put("labels", ys)
    p = {k: v.clone().requires_grad_() for k, v in model.p.items()}
    parts = model.loss(p, xs[0], y(0), beta, free, 0)
    for key, value in zip(("loss", "reconstruction", "kl", "kl_dims"), parts):
        put(key, value)
    parts[0].backward()
    put("iwae", model.iwae(p, xs[0], y(0), K))
    for k, v in p.items():
        put(f"init.{k}", model.stored(k, v).float())
        put(f"grad.{k}", model.stored(k, v.grad))
    optimizer, losses = torch.optim.Adam(p.values(), lr=LR, betas=(0.9, 0.999), eps=1e-8), []
    for i in range(STEPS):
        optimizer.zero_grad()
        loss = model.loss(p, xs[i], y(i), beta, free, i)[0]
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    put("train.losses", torch.stack(losses))
    print(f"{name}: loss {parts[0]:.4f}, kl {parts[3].tolist()}, losses {losses[0]:.3f} to {losses[-1]:.3f}")


case("mlp", 1, (6, 8, 1), [], 12, 1.0, 0.0)
case("mlp_labels_gaussian", 2, (6, 6, 2), [], 10, 0.5, 0.1, std=0.5, labels=True)
case("conv_labels", 3, (8, 12, 1), [3, 4], 10, 1.0, 0.2, labels=True)
case("conv_gaussian", 4, (8, 8, 3), [4, 5], 9, 2.0, 0.0, std=0.25)
finish("vae", tensors, dict(batch=B, latent=LATENT, classes=CLASSES, steps=STEPS, lr=LR, seed=SEED, k=K))
