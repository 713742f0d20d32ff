"""gan.safetensors: small DCGANs in float64, whole: losses and gradients of both networks, ten steps in turns, samples.

    python tests/reference/gan.py [--check]

The models are torch's functions over named parameters. A label is a one-hot vector beside z in the generator, and a row of the
last layer's kernels in the discriminator. See README.md.
"""
import torch
import torch.nn.functional as F

from fixture import Source, finish, to_kiln

B, LATENT, CLASSES, STEPS, LR, WIDTH = 6, 5, 3, 10, 1e-3, 3
tensors = {}
LOSSES = {
    "non_saturating": (lambda r, f, s: F.binary_cross_entropy_with_logits(r, torch.full_like(r, 1 - s))
                       + F.binary_cross_entropy_with_logits(f, torch.zeros_like(f)),
                       lambda f: F.binary_cross_entropy_with_logits(f, torch.ones_like(f))),
    "hinge": (lambda r, f, s: F.relu(1 - r).mean() + F.relu(1 + f).mean(), lambda f: -f.mean()),
    "least_squares": (lambda r, f, s: 0.5 * ((r - (1 - s)) ** 2).mean() + 0.5 * (f ** 2).mean(),
                      lambda f: 0.5 * ((f - 1) ** 2).mean()),
    "wasserstein": (lambda r, f, s: f.mean() - r.mean(), lambda f: -f.mean()),
}


class Gan:
    def __init__(self, src, side, halves, channels, labels):
        self.side, self.k, self.labels = side, halves, labels
        widths = [channels] + [WIDTH << i for i in range(halves)]
        self.p, self.buffers = {}, {}

        def norm(name, n):
            self.p |= {f"{name}.weight": src.normal(n, std=0.2, mean=1.0), f"{name}.bias": src.normal(n, std=0.1)}
            self.buffers |= {f"{name}.running_mean": torch.zeros(n).double(), f"{name}.running_var": torch.ones(n).double()}

        kernel = lambda a, b, k: src.normal(a, b, k, k, std=0.2)
        for i in range(halves + 1):
            a, b, k = (LATENT, widths[halves], side) if i == 0 else (widths[halves + 1 - i], widths[halves - i], 4)
            self.p[f"g.{i}.weight"] = kernel(a, b, k)
            if i < halves:
                norm(f"g.{i}.norm", b)
        for i in range(halves + 1):
            a, b, k = (widths[i], widths[i + 1], 4) if i < halves else (widths[halves], 1, side)
            self.p[f"d.{i}.weight"] = kernel(b, a, k)
            if 0 < i < halves:
                norm(f"d.{i}.norm", b)
        if labels:
            for net in "gd":
                self.p[f"{net}.labels.weight"] = src.normal(CLASSES, widths[halves], side, side, std=0.3)

    def norm(self, p, name, x, training):
        mean, var = (self.buffers[f"{name}.running_{s}"] for s in ("mean", "var"))
        return F.batch_norm(x, mean, var, p[f"{name}.weight"], p[f"{name}.bias"], training)

    def generate(self, p, z, y, training=True):
        w = p["g.0.weight"]
        if self.labels:
            z, w = torch.cat([z, F.one_hot(y, CLASSES).double()], 1), torch.cat([w, p["g.labels.weight"]])
        x = F.conv_transpose2d(z.view(B, -1, 1, 1), w)
        for i in range(1, self.k + 1):
            x = F.conv_transpose2d(F.relu(self.norm(p, f"g.{i - 1}.norm", x, training)), p[f"g.{i}.weight"], None, 2, 1)
        return x.tanh()

    def judge(self, p, x, y):
        for i in range(self.k):
            x = F.conv2d(x, p[f"d.{i}.weight"], None, 2, 1)
            x = F.leaky_relu(self.norm(p, f"d.{i}.norm", x, True) if i else x, 0.2)
        w = p[f"d.{self.k}.weight"]
        if self.labels:
            return (x * (w + p["d.labels.weight"][y])).flatten(1).sum(1)
        return F.conv2d(x, w).view(B)

    def stored(self, name, x):
        """As kiln has it; tables of labels (classes, C, s, s) as (classes, s·s·C)."""
        x = x.detach()
        return to_kiln(x).flatten(1) if "labels" in name else to_kiln(x) if x.dim() == 4 else x


def case(name, seed, side, halves, channels, loss, smoothing, labels):
    src = Source(seed)
    model = Gan(src, side, halves, channels, labels)
    d_loss, g_loss = LOSSES[loss]
    xs = src.uniform(STEPS, B, channels, side << halves, side << halves) * 2 - 1
    zs, ys = src.normal(STEPS, B, LATENT), src.ints(CLASSES, STEPS, B)
    put = lambda key, x: tensors.__setitem__(f"{name}.{key}", x.detach().contiguous().clone())
    put("x", torch.stack([to_kiln(x) for x in xs]).float())
    put("z", zs)
    put("labels", ys)
    p = {k: v.clone().requires_grad_() for k, v in model.p.items()}
    for k, v in p.items():
        put(f"init.{k}", model.stored(k, v).float())
    nets = {net: [v for k, v in p.items() if k.startswith(net)] for net in "gd"}
    adam = {net: torch.optim.Adam(nets[net], lr=LR, betas=(0.5, 0.999), eps=1e-8) for net in nets}
    losses = []
    for i in range(STEPS):
        x, z, y = xs[i], zs[i], ys[i]
        for net in "dg":
            fake = model.generate(p, z, y)
            if net == "d":
                value = d_loss(model.judge(p, x, y), model.judge(p, fake.detach(), y), smoothing)
            else:
                value = g_loss(model.judge(p, fake, y))
            [v.__setattr__("grad", None) for v in p.values()]
            value.backward()
            losses.append(value.detach())
            if i == 0:
                for k, v in p.items():
                    if k.startswith(net):
                        put(f"grad.{k}", model.stored(k, v.grad))
                if net == "g":
                    put("fake", to_kiln(fake))
            adam[net].step()
    put("train.losses", torch.stack(losses).view(STEPS, 2))
    for k, v in model.buffers.items():
        put(f"final.{k}", v)
    put("samples", to_kiln(model.generate(p, zs[0], ys[0], training=False)))
    print(f"{name}: losses", ", ".join(f"{d:.3f} {g:.3f}" for d, g in torch.stack(losses).view(STEPS, 2).tolist()))


case("plain", 1, 4, 2, 1, "non_saturating", 0.1, labels=False)
case("classes", 2, 7, 1, 2, "hinge", 0.0, labels=True)
src = Source(3)
real, fake = src.normal(7, std=2.0), src.normal(7, std=2.0)
tensors |= {"losses.real": real, "losses.fake": fake}
for loss, (d, g) in LOSSES.items():
    tensors[f"losses.{loss}"] = torch.stack([d(real, fake, 0.1), g(fake)])
finish("gan", tensors, dict(batch=B, latent=LATENT, classes=CLASSES, steps=STEPS, lr=LR, betas=[0.5, 0.999], width=WIDTH))
