"""What an experiment's YAML describes, made but not run: for commands that do something else with it than `fit`."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import pytorch_lightning as pl
from pytorch_lightning.cli import LightningCLI

from temporal_attn.features import FeatureCache
from temporal_attn.lightning_cli import PARSERS, TemporalCLI
from temporal_attn.types import UserError

__all__ = ["Experiment", "load_experiment"]


class Experiment(NamedTuple):
    """The objects that `fit` would run.

    Args:
        module: The model and how it is trained.
        data: The data set.
        trainer: The Trainer, without any callback but `features`: nothing is saved or logged.
        features: The feature cache, which does nothing as long as the data set has no ``cache_dir``.
    """

    module: pl.LightningModule
    data: pl.LightningDataModule
    trainer: pl.Trainer
    features: FeatureCache


class _Unstarted(TemporalCLI):
    """Stops where `fit` would begin."""

    def before_instantiate_classes(self) -> None:
        """No progress bar."""

    def after_instantiate_classes(self) -> None:
        """No run's folder."""

    def _run_subcommand(self, subcommand: str) -> None:
        """Nothing is run."""


def load_experiment(config: str | Sequence[str], options: Sequence[str] = ()) -> Experiment:
    """Make what the YAML of `temporal-attn fit` describes.

    Args:
        config: The file; of several, later ones go before earlier ones.
        options: Further words of `temporal-attn fit`, such as ``--data.root=ROOT``; they go before the files.

    Raises:
        UserError: An argument names something that does not exist, or the data is none of `datamodules`.
    """
    files = [config] if isinstance(config, str) else config
    quiet = ("--trainer.logger=false", "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false")
    # Of no use to whoever types a command, see `temporal_attn.lightning_cli.run`.
    warnings.filterwarnings("ignore", ".*args parameter is intended.*")
    warnings.filterwarnings("ignore", category=DeprecationWarning, module="pytorch_lightning")
    try:
        cli: LightningCLI = _Unstarted(
            model_class=pl.LightningModule,
            datamodule_class=pl.LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            seed_everything_default=0,
            save_config_callback=None,
            parser_kwargs=PARSERS,
            args=["fit", *(f"--config={file}" for file in files), *quiet, *options],
        )
    except ValueError as error:
        if isinstance(error.__cause__, UserError):  # jsonargparse wraps what a constructor raises
            raise error.__cause__ from None
        raise
    callbacks: list[pl.Callback] = cli.trainer.callbacks  # type: ignore[attr-defined]
    features = next(callback for callback in callbacks if isinstance(callback, FeatureCache))
    callbacks[:] = [features]
    return Experiment(cli.model, cli.datamodule, cli.trainer, features)
