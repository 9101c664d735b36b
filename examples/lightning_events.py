"""Train with Lightning's Trainer, configured by a YAML file and the command line.

Makes LCD-like events and tells four particles apart by their showers:

    python examples/lightning_events.py

or trains on the events of a specification, with any option of the Trainer, the model and the data; a run that was
interrupted goes on with the very batch that was next:

    python examples/lightning_events.py fit --config examples/lightning_events.yaml --data.spec lcd.yaml
    python examples/lightning_events.py fit --config ... --ckpt_path checkpoints/epoch=3-step=900.ckpt
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

import hepfeed as hf
from hepfeed.lightning import EventDataModule
from hepfeed.synthetic import make_lcd


class ShowerClassifier(pl.LightningModule):
    """Tells particles apart by the energies in the layers of both calorimeters.

    Args:
        classes: Number of classes.
        layers: Of all axes together: 25 + 25 + 25 of ECAL and 5 + 5 + 60 of HCAL.
        learning_rate: Of AdamW.
    """

    def __init__(self, classes: int, layers: int = 145, learning_rate: float = 1e-3) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.network = torch.nn.Sequential(
            torch.nn.BatchNorm1d(layers), torch.nn.Linear(layers, 64), torch.nn.ReLU(), torch.nn.Linear(64, classes)
        )

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return ``(B, classes)`` scores."""
        sums = [batch[name].sum(axes) for name in ("ECAL", "HCAL") for axes in ((1, 2), (2, 3), (1, 3))]
        return self.network(torch.log1p(torch.cat(sums, 1)))

    def training_step(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the cross entropy of a batch."""
        return torch.nn.functional.cross_entropy(self(batch), batch["label"])

    def validation_step(self, batch: dict[str, torch.Tensor]) -> None:
        """Log how many events are told right."""
        right = (self(batch).argmax(1) == batch["label"]).float().mean()
        self.log("accuracy", right, batch_size=len(batch["label"]), sync_dist=True)

    def on_validation_epoch_end(self) -> None:
        """Print the accuracy so far."""
        if not self.trainer.sanity_checking:
            self.print(f"epoch {self.current_epoch}: accuracy {self.trainer.callback_metrics['accuracy']:.3f}")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return AdamW."""
        return torch.optim.AdamW(self.parameters(), self.hparams["learning_rate"])


class CLI(LightningCLI):
    """Takes the number of classes from the data."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Link the model's option to the data's property."""
        parser.link_arguments("data.classes", "model.classes", compute_fn=len, apply_on="instantiate")


def main() -> None:
    """Run it."""
    if len(sys.argv) > 1:
        CLI(ShowerClassifier, EventDataModule)
        return
    with tempfile.TemporaryDirectory() as folder:
        spec = hf.SampleSpec(make_lcd(f"{folder}/data", files=2, events=200, compression="gzip"))
        spec.save(f"{folder}/lcd.yaml")
        config = Path(__file__).with_suffix(".yaml")
        paths = {"data.spec": f"{folder}/lcd.yaml", "data.cache": f"{folder}/cache", "trainer.default_root_dir": folder}
        arguments = ["fit", "--config", str(config), *(f"--{name}={path}" for name, path in paths.items())]
        CLI(ShowerClassifier, EventDataModule, args=arguments)


if __name__ == "__main__":
    main()
