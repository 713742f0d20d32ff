"""One training step of a model of pictures in PyTorch, timed.

    pictures_torch.py vae-mlp|vae-conv|dcgan|JSON [f32|bf16] [eager|compile] [--channels-last] [--threads N]
                      [--device cpu|cuda] [--reps N] [--keep-memory] [--serve]

Pictures are 28 x 28, grey, 128 a step, random, drawn outside the timed part.
vae-mlp, vae-conv: forward, BCE (summed) and KL, backward, fused Adam. dcgan: the discriminator's step on data and on pictures
that are made, then the generator's on the same pictures; BCE, fused Adam. The models are those of kiln's recipes of that
name. Output: see README.md.
"""
import argparse
import json
import os
import time

from common import add_device, emit, keep_memory, peak_rss_mb, serve, set_threads, spread

ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
ap.add_argument("model", help="vae-mlp, vae-conv, dcgan, or {\"pictures\": one of these, \"batch\": B}")
ap.add_argument("precision", nargs="?", default="f32", choices=["f32", "bf16"])
ap.add_argument("mode", nargs="?", default="eager", choices=["eager", "compile"])
ap.add_argument("--channels-last", action="store_true", help="pictures and weights as (N, H, W, C)")
ap.add_argument("--threads", type=int, default=int(os.environ.get("BENCH_THREADS", os.cpu_count())))
ap.add_argument("--reps", type=int, default=9, help="timed steps")
ap.add_argument("--warmup", type=int, default=3, help="steps before the first timed one")
ap.add_argument("--keep-memory", action="store_true", help="glibc keeps freed memory and uses huge pages")
ap.add_argument("--serve", action="store_true", help="one step for each line of standard input")
add_device(ap)
a = ap.parse_args()
if a.keep_memory:
    keep_memory()
set_threads(a.threads)

import torch  # after the thread variables are set
import torch.nn.functional as F

from pictures_model import Vae, dcgan

torch.set_num_threads(a.threads)
torch.manual_seed(1)
torch.set_default_device(a.device)
spec = json.loads(a.model) if a.model.startswith("{") else dict(pictures=a.model, batch=128)
name, batch = spec["pictures"], spec["batch"]
layout = torch.channels_last if a.channels_last else torch.contiguous_format
compiled = torch.compile if a.mode == "compile" else lambda model: model
autocast = lambda: torch.autocast(a.device, dtype=torch.bfloat16, enabled=a.precision == "bf16")
bce = F.binary_cross_entropy_with_logits


def vae_step():
    model = Vae(name == "vae-conv").to(memory_format=layout)
    forward = compiled(model)
    opt = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)

    def step(x):
        with autocast():
            decoded, mu, logvar = forward(x)
            kl = -0.5 * (1 + logvar - mu.square() - logvar.exp()).sum()
            loss = (bce(decoded, x, reduction="sum") + kl) / batch
        loss.backward()
        opt.step()
        opt.zero_grad()
        return loss
    return step, [model]


def dcgan_step():
    g, d = dcgan()
    g, d = g.to(memory_format=layout), d.to(memory_format=layout)
    make, judge = compiled(g), compiled(d)
    of_g, of_d = (torch.optim.Adam(net.parameters(), lr=2e-4, betas=(0.5, 0.999), fused=True) for net in (g, d))
    one, zero = torch.ones(batch), torch.zeros(batch)

    def step(x):
        with autocast():
            fake = make(torch.randn(batch, 100, 1, 1))
            loss = bce(judge(2 * x - 1), one) + bce(judge(fake.detach()), zero)
        loss.backward()
        of_d.step()
        of_d.zero_grad()
        # The discriminator needs no gradients of its own in the generator's turn.
        d.requires_grad_(False)
        with autocast():
            of_fake = bce(judge(fake), one)
        of_fake.backward()
        d.requires_grad_(True)
        of_g.step()
        of_g.zero_grad()
        return loss + of_fake
    return step, [g, d]


step_on, models = dcgan_step() if name == "dcgan" else vae_step()


def step():
    """One step on new pictures -> seconds, pictures, loss."""
    x = torch.rand(batch, 1, 28, 28).to(memory_format=layout)
    if a.device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    loss = step_on(x)
    if a.device == "cuda":
        torch.cuda.synchronize()
    return dict(seconds=time.perf_counter() - start, pictures=batch, loss=loss.item())


peer = f"torch-{a.mode}" + ("-channels-last" if a.channels_last else "") + ("-keepmem" if a.keep_memory else "")
label = dict(bench="step", peer=peer, case=f"{name} {a.precision}", threads=a.threads, unit="pictures/s")
facts = dict(version=torch.__version__, params=sum(p.numel() for m in models for p in m.parameters()))
first = step()["loss"]
for _ in range(a.warmup - 1):
    step()
if a.serve:
    serve(step, **label, **facts, pictures=batch, first_loss=first)
else:
    runs = [step() for _ in range(a.reps)]
    emit(**label, **spread([batch / r["seconds"] for r in runs]), peak_rss_mb=peak_rss_mb(), **facts,
         first_loss=first, last_loss=runs[-1]["loss"])
