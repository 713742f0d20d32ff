"""The models of kiln's recipes vae-mlp, vae-conv and dcgan in PyTorch, for grey pictures of 28 x 28."""
import torch
from torch import nn


class Vae(nn.Module):
    """784-400-(20, 20)-400-784, or convolutions to 7 x 7 x 64 and 256 before and after the 20 numbers."""

    def __init__(self, conv):
        super().__init__()
        flat, hidden = (7 * 7 * 64, 256) if conv else (784, 400)
        down = [nn.Conv2d(1, 32, 4, 2, 1), nn.ReLU(), nn.Conv2d(32, 64, 4, 2, 1), nn.ReLU()] if conv else []
        up = [nn.ReLU(), nn.Unflatten(1, (64, 7, 7)), nn.ConvTranspose2d(64, 32, 4, 2, 1), nn.ReLU(),
              nn.ConvTranspose2d(32, 1, 4, 2, 1)] if conv else [nn.Unflatten(1, (1, 28, 28))]
        self.encoder = nn.Sequential(*down, nn.Flatten(), nn.Linear(flat, hidden), nn.ReLU())
        self.mu, self.logvar = nn.Linear(hidden, 20), nn.Linear(hidden, 20)
        self.decoder = nn.Sequential(nn.Linear(20, hidden), nn.ReLU(), nn.Linear(hidden, flat), *up)

    def forward(self, x):
        h = self.encoder(x)
        mu, logvar = self.mu(h), self.logvar(h)
        return self.decoder(mu + torch.randn_like(mu) * (0.5 * logvar).exp()), mu, logvar


def dcgan():
    """Generator, of 100 numbers, and discriminator (Radford et al. 2015), with the paper's initial weights."""
    g = nn.Sequential(nn.ConvTranspose2d(100, 128, 7, bias=False), nn.BatchNorm2d(128), nn.ReLU(),
                      nn.ConvTranspose2d(128, 64, 4, 2, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
                      nn.ConvTranspose2d(64, 1, 4, 2, 1, bias=False), nn.Tanh())
    d = nn.Sequential(nn.Conv2d(1, 64, 4, 2, 1, bias=False), nn.LeakyReLU(0.2),
                      nn.Conv2d(64, 128, 4, 2, 1, bias=False), nn.BatchNorm2d(128), nn.LeakyReLU(0.2),
                      nn.Conv2d(128, 1, 7, bias=False), nn.Flatten(0))
    for net in (g, d):
        for layer in net:
            if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
                nn.init.normal_(layer.weight, 0.0, 0.02)
            elif isinstance(layer, nn.BatchNorm2d):
                nn.init.normal_(layer.weight, 1.0, 0.02)
    return g, d
