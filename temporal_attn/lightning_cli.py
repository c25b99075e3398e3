"""fit, validate, test and predict: LightningCLI in subclass mode, with what a run of this package always has."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import RichProgressBar
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from pytorch_lightning.utilities.exceptions import SIGTERMException

import datamodules
from datamodules.base import TooManyFailures
from temporal_attn.callbacks import BestCheckpoint, MetricsWriter, PredictionWriter, run_folder
from temporal_attn.checkpoints import read_checkpoint
from temporal_attn.features import FeatureCache
from temporal_attn.module import VideoClassificationModule
from temporal_attn.result_page import ResultPage
from temporal_attn.types import UserError

__all__ = ["PARSERS", "TemporalCLI", "run"]

# Names of classes are imported when they are asked for, and --help lists, and short names find, what has been imported.
_DATAMODULES = tuple(getattr(datamodules, name) for name in datamodules.__all__)

# A failure is tolerated up to this count or share, whichever is more; the same rule stops a training.
TOLERATED, TOLERATED_SHARE = 5, 0.01

# What the parsers are called, and their synopsis: that of all options takes sixty lines, and stood above every error.
PARSERS: dict[str, Any] = {
    "prog": "temporal-attn",
    **{name: {"usage": f"temporal-attn {name} [options]"} for name in ("fit", "validate", "test", "predict")},
}


class TemporalCLI(LightningCLI):
    """LightningCLI whose checkpoints carry the model's settings: with ``--ckpt_path`` those win over the YAML's."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Checkpoints, the feature cache, the rows of `predict` and the page of `test` get a group of options each."""
        parser.add_lightning_class_args(BestCheckpoint, "checkpoint")
        parser.add_lightning_class_args(PredictionWriter, "predictions")
        parser.add_lightning_class_args(ResultPage, "page")
        parser.add_lightning_class_args(FeatureCache, "features")
        parser.set_defaults({"model": {"class_path": "temporal_attn.module.VideoClassificationModule"}})

    def _parse_ckpt_path(self) -> None:
        """Take the model's settings from the checkpoint.

        Lightning's own form keeps the YAML's values of what the checkpoint does not mention and fails on checkpoints
        of modules built in Python. A checkpoint of ours is complete, so it replaces the model's section.
        """
        subcommand = self.config.get("subcommand")
        section: Any = self.config[subcommand] if subcommand else {}
        path = section.get("ckpt_path")
        if path in ("best", "last"):
            path = section.ckpt_path = _in_the_run(path, section.trainer.default_root_dir, str(subcommand))
        if not path or path in ("last", "hpc", "registry"):
            return
        if _ours(section.model.class_path):
            settings = read_checkpoint(path)["hyper_parameters"]
            for name, value in settings.items():
                if not name.startswith("_"):
                    section.model.init_args[name] = value
        elif not Path(path).is_file():
            raise UserError(f"checkpoint {path}: no such file")
        else:
            super()._parse_ckpt_path()

    def _add_configure_optimizers_method_to_model(self, subcommand: str | None) -> None:
        """Say that ``--optimizer`` has nothing to optimise before the data has told the classes.

        Raises:
            UserError: It is given, and the model is not made yet.
        """
        optimizer = self._get(self.config, "optimizer")
        if optimizer and isinstance(self.model, VideoClassificationModule) and not list(self.model.parameters()):
            raise UserError(
                "--optimizer: the model is made when the data has told its classes, and has AdamW with a rate a part: "
                "set model.lr, model.backbone_lr and model.weight_decay, or give model.class_names too"
            )
        super()._add_configure_optimizers_method_to_model(subcommand)

    def before_instantiate_classes(self) -> None:
        """Show progress on stderr, because stdout is for results; unless it is switched off."""
        section: Any = self.config[self.subcommand]
        if section.trainer.enable_progress_bar is not False:
            self.trainer_defaults["callbacks"].append(RichProgressBar(console_kwargs={"stderr": True}))

    def after_instantiate_classes(self) -> None:
        """Find out before the work that the run's folder can be written."""
        run_folder(self.trainer)


def _in_the_run(which: str, folder: str | None, subcommand: str) -> str:
    """``best`` and ``last`` are files of the run's folder; a training without its ``last`` begins anew.

    Raises:
        UserError: There is no such file.
    """
    path = Path(folder or ".") / "checkpoints" / f"{which}.ckpt"
    if path.is_file():
        return str(path)
    if (subcommand, which) == ("fit", "last"):
        return which
    raise UserError(f"--ckpt_path {which}: {path}: no such file; --trainer.default_root_dir is the folder of the run")


class _SavedConfig(SaveConfigCallback):
    """``config.yaml`` says how a run was trained, whatever is done with it later: that lies beside it."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage != "fit":
            self.config_filename = f"config_{getattr(stage, 'value', stage)}.yaml"  # an enumeration, in Lightning 2.6
        super().setup(trainer, pl_module, stage)


def _ours(class_path: str) -> bool:
    module, _, name = class_path.rpartition(".")
    found = getattr(import_module(module), name)
    return isinstance(found, type) and issubclass(found, VideoClassificationModule)


def run(words: list[str], program: type[TemporalCLI] | None = None) -> int:
    """Run one of the four subcommands; the path of what it wrote is the last line on stdout.

    Args:
        words: The subcommand and its options.
        program: What makes model, data and trainer of them; None is `TemporalCLI`.

    Returns:
        0; 1 when more videos than tolerated could not be read; 143 when the process was told to terminate.
    """
    # Of no use to whoever types a command: what jsonargparse 5 will remove, that `args` is given although it is
    # exactly the command line, and that frozen parts are in evaluation mode.
    for message in (".*args parameter is intended.*", ".*in eval mode at the start of training.*"):
        warnings.filterwarnings("ignore", message)
    warnings.filterwarnings("ignore", category=DeprecationWarning, module="pytorch_lightning")
    metrics = MetricsWriter()
    try:
        cli = (program or TemporalCLI)(
            model_class=pl.LightningModule,
            datamodule_class=pl.LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            seed_everything_default=0,
            save_config_callback=_SavedConfig,
            save_config_kwargs={"overwrite": True},
            trainer_defaults={"callbacks": [metrics]},
            parser_kwargs=PARSERS,
            args=words,
        )
    except MisconfigurationException as error:
        raise UserError(" ".join(str(error).split())) from None
    except SIGTERMException:
        # A cluster took the machine away. Lightning leaves as if all were done; whoever waits for us must not think so.
        print("temporal-attn: error: terminated before the end; go on with --ckpt_path", file=sys.stderr)
        return 143
    except ValueError as error:
        # jsonargparse wraps what a constructor raises
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from None
        raise
    except TooManyFailures as error:
        print(f"temporal-attn: error: {error}", file=sys.stderr)
        return 1
    callbacks: list[pl.Callback] = cli.trainer.callbacks  # type: ignore[attr-defined]
    predictions = next(callback for callback in callbacks if isinstance(callback, PredictionWriter))
    page = next(callback for callback in callbacks if isinstance(callback, ResultPage))
    return _report(cli, metrics, predictions, page)


def is_unsound(summary: Mapping[str, Any]) -> bool:
    """Whether more videos of a test could not be read than a test may leave out.

    Args:
        summary: What ``metrics.json`` holds.
    """
    return bool(len(summary["failed"]) > max(TOLERATED, TOLERATED_SHARE * summary["videos"]))


def _report(cli: LightningCLI, metrics: MetricsWriter, predictions: PredictionWriter, page: ResultPage) -> int:
    summary: dict[str, Any] | None = getattr(cli.model, "test_summary", None)
    status = 0
    if summary is not None and is_unsound(summary):
        print(
            f"temporal-attn: error: {len(summary['failed'])} of {summary['videos']} videos could not be read; "
            "metrics.json names them",
            file=sys.stderr,
        )
        status = 1
    if predictions.failed:
        print(
            f"temporal-attn: error: {predictions.failed} of {predictions.rows} videos have no prediction; "
            "predictions.jsonl says why",
            file=sys.stderr,
        )
        status = 1
    checkpoint = getattr(cli.trainer.checkpoint_callback, "best_model_path", "") if cli.subcommand == "fit" else ""
    for path in (page.path, metrics.path, predictions.path, checkpoint):
        if path and cli.trainer.is_global_zero:
            print(path)
    return status
