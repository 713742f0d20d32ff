"""Fixtures of the layers of picture models in float64, by torch's own functions: losses, norms, pooling, upsampling.

    python tests/reference/layers.py            writes tests/fixtures/layers.safetensors
    python tests/reference/layers.py --check    recomputes and compares with the committed file

A case is stored as in ops.py. Pictures are stored (N, H, W, C); torch is given (N, C, H, W). See README.md.
"""
import torch
import torch.nn.functional as F

from fixture import Source, finish

tensors = {}


def case(name, fn, inputs, fixed=()):
    """fn(*inputs, *fixed) -> {output: tensor}. Gradients go to `inputs`, from outputs that have one."""
    src = Source(sum(map(ord, name)))
    fixed = dict(fixed)
    leaves = {k: v.clone().requires_grad_() for k, v in inputs.items()}
    outputs = fn(*leaves.values(), *fixed.values())
    upstream = {k: src.normal(*v.shape) for k, v in outputs.items() if v.requires_grad}
    torch.autograd.backward([outputs[k] for k in upstream], list(upstream.values()))
    put = lambda key, v: tensors.__setitem__(f"{name}.{key}", v.detach().contiguous().clone())
    for k, v in {**inputs, **fixed, **outputs}.items():
        put(k, v)
    for k, v in upstream.items():
        put(f"d{k}", v)
    for k, v in leaves.items():
        put(f"d{k}", v.grad)


to_torch = lambda x: x.permute(0, 3, 1, 2)
to_kiln = lambda x: x.permute(0, 2, 3, 1)
each = lambda loss: loss.flatten(1).sum(1)  # summed for each example

src = Source(1)
grid = torch.linspace(-8, 8, 128, dtype=torch.float64)
grid = grid.float().double()  # never 0
case("leaky_relu", lambda x: dict(y=F.leaky_relu(x, torch.tensor(0.2).item())), dict(x=grid))
case("softplus", lambda x: dict(y=F.softplus(x, threshold=1e9)), dict(x=grid))

x, v = src.normal(5, 3, 4, std=2.0), src.normal(5, 3, 4)
t = torch.sigmoid(src.normal(5, 3, 4)).float().double()
bce = lambda x, t: dict(y=each(F.binary_cross_entropy_with_logits(x, t, reduction="none")))
case("bce", bce, dict(x=x), dict(t=t))
case("square", lambda x, t: dict(y=each(F.mse_loss(x, t, reduction="none"))), dict(x=x, t=t))
case("absolute", lambda x, t: dict(y=each(F.l1_loss(x, t, reduction="none"))), dict(x=x, t=t))
nll = lambda x, t, v: dict(y=each(F.gaussian_nll_loss(x, t, v.exp(), full=True, eps=0.0, reduction="none")))
case("gaussian", nll, dict(x=x, t=t, v=v))
case("hinge", lambda x: dict(y=F.relu(1 - x).mean(1)), dict(x=src.normal(6, 3, std=2.0)))


def gaussian_kl(mu, v, free=0.0):
    normal = torch.distributions.Normal
    kl = torch.distributions.kl_divergence(normal(mu, (0.5 * v).exp()), normal(torch.zeros_like(mu), torch.ones_like(v)))
    kl = kl.mean(0)
    return dict(loss=kl.clamp(min=free).sum(), kl=kl)


mu, v = src.normal(9, 7), src.normal(9, 7, std=0.5)
case("gaussian_kl", gaussian_kl, dict(mu=mu, v=v))
case("gaussian_kl_free", lambda mu, v: gaussian_kl(mu, v, 0.5), dict(mu=mu, v=v))

# ---- norms --------------------------------------------------------------------------------------------------------
x, g, b = src.normal(3, 4, 5, 6, mean=0.5, std=2.0), src.normal(6, mean=1.0, std=0.3), src.normal(6, std=0.3)
mean, var = src.normal(6), torch.rand(6, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).float().double() + 0.5
slope = torch.tensor(0.2).item()  # as f32 has it
eps, momentum = torch.tensor(1e-5).item(), torch.tensor(0.1).item()


def batchnorm(x, g, b, mean, var):
    mean, var = mean.clone(), var.clone()
    y = F.batch_norm(to_torch(x), mean, var, g, b, training=True, momentum=momentum, eps=eps)
    return dict(y=to_kiln(y), new_mean=mean, new_var=var)


def batchnorm_given(x, g, b, mean, var):
    return dict(y=to_kiln(F.leaky_relu(F.batch_norm(to_torch(x), mean, var, g, b, training=False, eps=eps), slope)))


case("batchnorm", batchnorm, dict(x=x, g=g, b=b), dict(mean=mean, var=var))
case("batchnorm_given", batchnorm_given, dict(x=x, g=g, b=b), dict(mean=mean, var=var))
groupnorm = lambda x, g, b: dict(y=to_kiln(F.leaky_relu(F.group_norm(to_torch(x), 2, g, b, eps=eps), slope)))
case("groupnorm", groupnorm, dict(x=x, g=g, b=b))

# ---- other sizes --------------------------------------------------------------------------------------------------
x = src.normal(2, 7, 6, 3)
case("pool", lambda x: dict(y=to_kiln(F.avg_pool2d(to_torch(x), (3, 2), (2, 1)))), dict(x=x))
case("nearest", lambda x: dict(y=to_kiln(F.interpolate(to_torch(x), scale_factor=2, mode="nearest"))), dict(x=x))
bilinear = lambda x, k: dict(y=to_kiln(F.interpolate(to_torch(x), scale_factor=k, mode="bilinear", align_corners=False)))
case("bilinear_2", lambda x: bilinear(x, 2), dict(x=x))
case("bilinear_3", lambda x: bilinear(x, 3), dict(x=x))

# ---- spectral norm ------------------------------------------------------------------------------------------------
def spectral(w, u, layer):
    torch.nn.utils.spectral_norm(layer)
    layer._parameters["weight_orig"] = w.permute(0, 3, 1, 2)
    layer.weight_u.copy_(u)
    layer(torch.zeros(1, w.shape[0] if isinstance(layer, torch.nn.ConvTranspose2d) else w.shape[3], 5, 5).double())
    return dict(y=layer.weight.permute(0, 2, 3, 1), new_u=layer.weight_u)


w = src.normal(6, 3, 2, 4, std=0.3)
unit = lambda n: F.normalize(src.normal(n), dim=0).float().double()
case("spectral", lambda w, u: spectral(w, u, torch.nn.Conv2d(4, 6, (3, 2)).double()), dict(w=w), dict(u=unit(6)))
up = lambda w, u: spectral(w, u, torch.nn.ConvTranspose2d(6, 4, (3, 2)).double())
case("spectral_last", up, dict(w=w), dict(u=unit(4)))

# ---- augmentation -------------------------------------------------------------------------------------------------
def philox(key, counter):
    """Philox 4x32-10 (Salmon et al. 2011), as kiln's rng.rs has it."""
    (k0, k1), (c0, c1, c2, c3) = key, counter
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = p1 >> 32 ^ c1 ^ k0, p1 & 0xFFFFFFFF, p0 >> 32 ^ c3 ^ k1, p0 & 0xFFFFFFFF
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c0, c1, c2, c3


# Stream::new(5, Purpose::Augment, 3, 0)
numbers = lambda count: [x for block in range(count // 4) for x in philox((5, 0), (block, 8 << 24 | 3, 0, 0))]
numbers = torch.tensor(numbers(8 * 4), dtype=torch.int64).reshape(4, 8)
share = lambda i: ((numbers[:, i] >> 8).double() / 2**24).reshape(-1, 1, 1, 1)
below = lambda i, n: (numbers[:, i] * n >> 32).reshape(-1, 1, 1)


def augment(x):
    """Brightness, saturation, contrast; translation; cutout, as the paper's DiffAugment_pytorch.py has them."""
    x = to_torch(x)
    (n, _, h, w), half = x.shape, lambda length: int(length * 0.5 + 0.5)
    x = x + (share(0) - 0.5)
    x = (x - x.mean(1, keepdim=True)) * (share(1) * 2) + x.mean(1, keepdim=True)
    mean = x.mean([1, 2, 3], keepdim=True)
    x = (x - mean) * (share(2) + 0.5) + mean
    picture, row, column = torch.meshgrid(torch.arange(n), torch.arange(h), torch.arange(w), indexing="ij")
    most = [int(length * 0.125 + 0.5) for length in (h, w)]
    padded = F.pad(x, [1, 1, 1, 1]).permute(0, 2, 3, 1)
    row_from = (row + below(3, 2 * most[0] + 1) - most[0] + 1).clamp(0, h + 1)
    column_from = (column + below(4, 2 * most[1] + 1) - most[1] + 1).clamp(0, w + 1)
    x = padded[picture, row_from, column_from].permute(0, 3, 1, 2)
    size = half(h), half(w)
    picture, row, column = torch.meshgrid(torch.arange(n), torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    row = (row + below(5, h + 1 - size[0] % 2) - size[0] // 2).clamp(0, h - 1)
    column = (column + below(6, w + 1 - size[1] % 2) - size[1] // 2).clamp(0, w - 1)
    mask = torch.ones(n, h, w, dtype=torch.float64)
    mask[picture, row, column] = 0
    return dict(y=to_kiln(x * mask.unsqueeze(1)))


case("augment", augment, dict(x=src.normal(4, 9, 12, 3)))

finish("layers", tensors, dict(what="layers of picture models, all float64", slope=slope, eps=eps, momentum=momentum))
