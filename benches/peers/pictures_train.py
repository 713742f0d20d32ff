"""PyTorch trains the models of kiln's recipes vae-mlp, vae-conv and dcgan on MNIST's kind of files, for results to compare.

    pictures_train.py vae-mlp|vae-conv --data DIR [--epochs N]
    pictures_train.py dcgan --data DIR [--steps N | --minutes M] --out FILE

DIR holds train-images-idx3-ubyte(.gz) and, held out, t10k-images-idx3-ubyte(.gz), grey and 28 x 28. A VAE prints the loss of
each epoch, summed over pixels, a picture: PyTorch's example (examples/vae). dcgan writes 10,000 samples as an IDX file, which
`kiln eval FILE --data DIR` judges as it judges kiln's own. Batches of 128, Adam with the recipes' rates. One JSON object a line.
"""
import argparse
import gzip
import json
import os
import struct
import time

from common import set_threads

ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
ap.add_argument("model", choices=["vae-mlp", "vae-conv", "dcgan"])
ap.add_argument("--data", required=True)
ap.add_argument("--epochs", type=int, default=10, help="VAE")
ap.add_argument("--steps", type=int, default=2400, help="dcgan")
ap.add_argument("--minutes", type=float, help="dcgan: train so long, whatever the steps")
ap.add_argument("--out", default="samples-images-idx3-ubyte")
ap.add_argument("--channels-last", action="store_true")
ap.add_argument("--seed", type=int, default=1)
ap.add_argument("--threads", type=int, default=os.cpu_count())
a = ap.parse_args()
set_threads(a.threads)

import torch  # after the thread variables are set
import torch.nn.functional as F

from pictures_model import Vae, dcgan

torch.set_num_threads(a.threads)
torch.manual_seed(a.seed)
layout = torch.channels_last if a.channels_last else torch.contiguous_format
bce = F.binary_cross_entropy_with_logits
BATCH = 128


def pictures(name):
    """(N, 1, 28, 28) from 0 to 1."""
    path = os.path.join(a.data, name)
    read = gzip.open(path + ".gz") if os.path.exists(path + ".gz") else open(path, "rb")
    with read as file:
        _, n, h, w = struct.unpack(">4i", file.read(16))
        x = torch.frombuffer(bytearray(file.read()), dtype=torch.uint8)
    return x.reshape(n, 1, h, w).float().div(255).to(memory_format=layout)


def batches(x):
    """Whole batches in a new order."""
    order = torch.randperm(len(x))
    return (x[order[i:i + BATCH]] for i in range(0, len(x) - BATCH + 1, BATCH))


def train_vae(train, test):
    model = Vae(a.model == "vae-conv").to(memory_format=layout)
    opt = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)

    def loss_of(x):
        decoded, mu, logvar = model(x)
        return bce(decoded, x, reduction="sum"), -0.5 * (1 + logvar - mu.square() - logvar.exp()).sum()
    start = time.perf_counter()
    for epoch in range(1, a.epochs + 1):
        total = count = 0
        for x in batches(train):
            loss = sum(loss_of(x)) / len(x)
            loss.backward()
            opt.step()
            opt.zero_grad()
            total, count = total + loss.item() * len(x), count + len(x)
        with torch.no_grad():
            parts = [sum(part.item() for part in both) / len(test)
                     for both in zip(*(loss_of(x) for x in test.split(BATCH)))]
        print(json.dumps(dict(epoch=epoch, train=total / count, held_out=sum(parts), reconstruction=parts[0], kl=parts[1],
                              seconds=time.perf_counter() - start)), flush=True)


def train_dcgan(train):
    g, d = (net.to(memory_format=layout) for net in dcgan())
    of_g, of_d = (torch.optim.Adam(net.parameters(), lr=2e-4, betas=(0.5, 0.999), fused=True) for net in (g, d))
    one, zero = torch.ones(BATCH), torch.zeros(BATCH)
    start, steps, epoch = time.perf_counter(), 0, 0
    left = lambda: time.perf_counter() - start < a.minutes * 60 if a.minutes else steps < a.steps
    while left():
        for x in batches(train):
            fake = g(torch.randn(BATCH, 100, 1, 1))
            of_data = bce(d(2 * x - 1), one) + bce(d(fake.detach()), zero)
            of_data.backward()
            of_d.step()
            of_d.zero_grad()
            d.requires_grad_(False)
            of_fake = bce(d(fake), one)
            of_fake.backward()
            d.requires_grad_(True)
            of_g.step()
            of_g.zero_grad()
            steps += 1
            if not left():
                break
        epoch += 1
        print(json.dumps(dict(epoch=epoch, steps=steps, d_loss=of_data.item(), g_loss=of_fake.item(),
                              seconds=time.perf_counter() - start)), flush=True)
    g.eval()
    with torch.no_grad():
        made = torch.cat([g(torch.randn(100, 100, 1, 1)) for _ in range(100)])
    values = made.mul(127.5).add(127.5).round().clamp(0, 255).to(torch.uint8).contiguous().numpy().tobytes()
    with open(a.out, "wb") as file:
        file.write(struct.pack(">4i", 0x803, len(made), 28, 28) + values)
    print(json.dumps(dict(out=a.out, pictures=len(made), steps=steps)), flush=True)


train = pictures("train-images-idx3-ubyte")
if a.model == "dcgan":
    train_dcgan(train)
else:
    train_vae(train, pictures("t10k-images-idx3-ubyte"))
