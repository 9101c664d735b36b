"""Tell four particles apart by their showers in a calorimeter.

Makes LCD-like events, feeds them mixed and shuffled, and trains a small network on the energy in each layer:

    python examples/lcd_classes.py
"""

from __future__ import annotations

import argparse
import tempfile

import numpy as np
import torch

import hepfeed as hf
from hepfeed.synthetic import make_lcd


def profiles(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Energy sums of each layer and of rings around the axis; runs in the readers."""
    ecal, hcal = batch["ECAL"], batch["HCAL"]
    sums = [ecal.sum((1, 2)), ecal.sum((2, 3)), ecal.sum((1, 3)), hcal.sum((1, 2)), hcal.sum((2, 3))]
    x = np.log1p(np.concatenate(sums, axis=1))
    return {"x": x, "label": batch["label"], "event": batch["event"]}  # with "event", what it returns can be cached


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=500, help="events of each of two files a class")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="(%(default)s)")
    options = parser.parse_args()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        spec = hf.SampleSpec(make_lcd(folder, files=2, events=options.events, compression="gzip"))
        with hf.DataProvider(
            spec,
            batch_size=64,
            splits={"train": 0.8, "val": 0.2},
            num_workers=options.workers,
            process_fn=profiles,
            cache=f"{folder}/cache",
            outputs=("x", "label"),
            device=options.device,
        ) as provider:
            features = next(iter(provider.val))[0].shape[1]
            model = torch.nn.Sequential(
                torch.nn.BatchNorm1d(features),
                torch.nn.Linear(features, 64),
                torch.nn.ReLU(),
                torch.nn.Linear(64, len(provider.classes)),
            ).to(options.device)
            optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
            for epoch in range(options.epochs):
                model.train()
                for x, y in provider.train:
                    loss = torch.nn.functional.cross_entropy(model(x), y)
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                model.eval()
                right = total = 0
                with torch.no_grad():
                    for x, y in provider.val:
                        right += int((model(x).argmax(1) == y).sum())
                        total += len(y)
                print(f"epoch {epoch}: validation accuracy {right / total:.3f}")
            print(provider.train.stats())


if __name__ == "__main__":
    main()
