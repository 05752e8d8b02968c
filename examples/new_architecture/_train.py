"""Trains the network to tell whether a drawn face looks left or right, and writes its weights."""

import argparse
from pathlib import Path

import numpy as np
import torch
from _separable_net import SeparableNet
from safetensors.torch import save_file
from separable_net import PREPROCESSING
from torch.nn import functional as F

from facetask import PluginManager

BATCH = 32


def main() -> None:
    """Draw, train, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=900)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("weights.safetensors"))
    options = parser.parse_args()

    dataset = PluginManager().find("dataset", "rendered-faces")
    data = dataset.load(dataset.params(count=options.pictures, size=64, seed=1))  # other people than run.yaml's
    pixels = torch.from_numpy(np.stack([PREPROCESSING.load(path) for path in data.paths]))
    left = torch.from_numpy((data.columns["yaw"] > 0).astype(int))

    torch.manual_seed(0)
    network = SeparableNet()
    optimiser = torch.optim.AdamW(network.parameters())
    batches = len(left) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=options.epochs * batches)
    for epoch in range(options.epochs):
        right = 0
        for rows in torch.randperm(len(left))[: batches * BATCH].split(BATCH):
            scores = network(PREPROCESSING.normalise(pixels[rows]))
            optimiser.zero_grad()
            F.cross_entropy(scores, left[rows]).backward()
            optimiser.step()
            schedule.step()
            right += int((scores.argmax(1) == left[rows]).sum())
        print(f"epoch {epoch + 1}: {right / (batches * BATCH):.1%} of the training pictures told right", flush=True)
    save_file(network.state_dict(), options.out)
    print(f"written: {options.out}")


if __name__ == "__main__":
    main()
