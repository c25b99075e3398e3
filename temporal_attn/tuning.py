"""`temporal-attn tune`: search the settings of an experiment with Optuna; hopeless trials stop early, studies go on.

Papers: Akiba et al., "Optuna", KDD 2019. https://arxiv.org/abs/1907.10902; Bergstra et al., "Algorithms for
Hyper-Parameter Optimization", NeurIPS 2011 (the sampler, TPE).
"""

from __future__ import annotations

import csv
import io
import json
import logging
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytorch_lightning as pl
import yaml  # type: ignore[import-untyped]
from pytorch_lightning.utilities.exceptions import SIGTERMException

from datamodules.atomic import write_atomically
from temporal_attn.callbacks import mode_of
from temporal_attn.experiment import load_experiment
from temporal_attn.output import writable_folder
from temporal_attn.search_space import Dimension, merged, overlay, read_space
from temporal_attn.types import UserError

if TYPE_CHECKING:
    import optuna

__all__ = ["PruneHopeless", "tune"]

log = logging.getLogger(__name__)


class PruneHopeless(pl.Callback):
    """Tells a trial how training goes, and ends it when its pruner sees no hope.

    Args:
        trial: The running trial.
        metric: Logged value that is the objective.
        mode: ``max`` or ``min``.

    Attributes:
        values: The metric after each validation.

    Raises:
        UserError: The metric is not logged.
        optuna.TrialPruned: There is no hope.
    """

    def __init__(self, trial: optuna.Trial, metric: str, mode: str) -> None:
        self.trial = trial
        self.metric = metric
        self.mode = mode
        self.values: list[float] = []

    @property
    def best(self) -> float:
        """The best value, which is that of best.ckpt; NaN where none is a number."""
        numbers = [value for value in self.values if not math.isnan(value)]
        return (max if self.mode == "max" else min)(numbers, default=math.nan)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report, and stop."""
        import optuna

        if trainer.sanity_checking:
            return
        value = trainer.callback_metrics.get(self.metric)
        if value is None:
            known = ", ".join(sorted(map(str, trainer.callback_metrics)))
            raise UserError(f"metric {self.metric!r} is not logged; choose one of: {known}")
        self.values.append(float(value))
        self.trial.report(self.values[-1], len(self.values))
        if self.trial.should_prune():
            raise optuna.TrialPruned


def tune(
    config: list[str] | str,
    study: str,
    space: list[str] | str,
    trials: int = 20,
    metric: str = "val/top1",
    mode: Literal["auto", "max", "min"] = "auto",
    options: list[str] | str | None = None,
    startup: int = 5,
    seed: int = 0,
    out: str | None = None,
) -> int:
    """Search the settings of an experiment, and write the best ones as YAML for `temporal-attn fit`.

    A trial is a training of its own; its objective is its best validation. After the first trials, one that is worse
    than the median of the others at the same point is given up. Run again, a study goes on to the number of trials
    asked for; a trial that was cut off counts as failed and not among them. One process may work at a study at a time.

    Args:
        config: YAML of `temporal-attn fit`; of several, later ones go before earlier ones.
        study: SQLite file that remembers the trials.
        space: What to search: YAML files, or options such as ``model.lr={low: 1e-4, high: 1e-2, log: true}`` and
            ``model.temporal={choices: [mean, transformer]}``.
        trials: Trials of the study in all, finished or given up.
        metric: Logged value that is the objective.
        mode: Whether it shall be large (``max``) or small (``min``); ``auto``: losses and calibration errors small.
        options: Further options of every training, such as ``data.root=ROOT``.
        startup: Trials before any is given up.
        seed: Decides what is tried; that of the trainings is in the YAML.
        out: Folder for best.yaml and trials.csv; that of the study if not given.

    Returns:
        Exit status: 1 where a trial failed, 143 when the process was told to terminate.

    Raises:
        UserError: Optuna is not installed, an option or the metric does not exist, or the study is another one's.
    """
    if trials < 1:
        raise UserError(f"trials is {trials}; it has to be positive")
    dimensions = read_space([space] if isinstance(space, str) else space)
    folder = writable_folder(Path(study).parent if out is None else out, "--out")
    direction = mode_of(metric) if mode == "auto" else mode
    search = _open(study, metric, direction, startup, seed)
    files = [config] if isinstance(config, str) else config
    words = [options] if isinstance(options, str) else options or []
    for name in ("pytorch_lightning", "lightning_fabric"):  # what every trial would say again
        logging.getLogger(name).setLevel(logging.WARNING)

    before = len(_finished(search))

    def attempt(trial: optuna.Trial) -> float:
        try:
            value = _fit(trial, dimensions, files, words, metric, direction)
        except (UserError, RuntimeError) as error:
            if len(_finished(search)) > before:  # else the error ends the search, and is told there
                log.warning("trial %d: %s", trial.number, " ".join(str(error).split()) or type(error).__name__)
            raise
        if math.isnan(value):
            log.warning("trial %d: %s was never a number", trial.number, metric)
        return value

    failed = 0
    while len(_finished(search)) < trials:
        # The first trial that fails shows wrong use; later ones that this setting does not work.
        tolerated = (UserError, RuntimeError) if len(_finished(search)) > before else ()
        try:
            search.optimize(attempt, 1, catch=tolerated)
        except SIGTERMException:
            print("temporal-attn: error: terminated before the end; run again to go on", file=sys.stderr)
            return 143
        except SystemExit:  # Lightning's answer to Ctrl-C
            raise KeyboardInterrupt from None
        failed += search.trials[-1].state.name == "FAIL"
        if failed > trials:
            raise UserError(f"study {study}: {failed} trials failed; the log says why")
        _write(search, folder, study, metric, direction, files)
        log.info(_line(search, trials, metric))
    _write(search, folder, study, metric, direction, files)
    print(folder / "best.yaml")
    return int(failed > 0)


def _open(path: str, metric: str, mode: str, startup: int, seed: int) -> optuna.Study:
    """The study of a file; trials that a process left behind when it was cut off are marked as failed."""
    try:
        import optuna
    except ImportError:
        raise UserError("tune needs Optuna: pip install 'temporal-attn[tune]'") from None
    from sqlalchemy.exc import SQLAlchemyError

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    direction: Literal["maximize", "minimize"] = "maximize" if mode == "max" else "minimize"
    try:
        search = optuna.create_study(
            storage=f"sqlite:///{Path(path).resolve()}",
            study_name="temporal-attn",
            direction=direction,
            pruner=optuna.pruners.MedianPruner(n_startup_trials=startup),
            load_if_exists=True,
        )
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        raise UserError(f"study {path}: cannot be opened as a study ({str(error).splitlines()[0]})") from None
    known = search.user_attrs.get("objective", [metric, mode])
    if known != [metric, mode]:
        raise UserError(f"study {path}: its objective is the {known[1]} of {known[0]}; choose another file")
    search.set_user_attr("objective", [metric, mode])
    for trial in search.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
        search.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    # A resumed study goes on with other draws than those that it began with.
    search.sampler = optuna.samplers.TPESampler(seed=seed + len(search.trials))
    return search


def _fit(
    trial: optuna.Trial,
    dimensions: Sequence[Dimension],
    config: Sequence[str],
    options: Sequence[str],
    metric: str,
    mode: str,
) -> float:
    """Train with the settings of a trial; its best validation."""
    import optuna

    values = {dimension.name: dimension.draw(trial) for dimension in dimensions}
    # As options they go before what the files say, and leave the neighbours of a nested one as they are.
    drawn = [f"--{name}={own if isinstance(own, str) else json.dumps(own)}" for name, own in values.items()]
    try:
        experiment = load_experiment(config, [*(f"--{option}" for option in options), *drawn])
    except SystemExit:
        raise UserError("these options are not those of `temporal-attn fit`, see above") from None
    if experiment.trainer.world_size > 1:
        raise UserError("tune trains on one device: set --options trainer.devices=1")
    pruning = PruneHopeless(trial, metric, mode)
    callbacks: list[pl.Callback] = experiment.trainer.callbacks  # type: ignore[attr-defined]
    callbacks.append(pruning)
    try:
        experiment.trainer.fit(experiment.module, datamodule=experiment.data)
    except SystemExit:
        trial.study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        raise
    if not pruning.values:
        raise UserError(f"metric {metric!r}: training ended without a validation; give the data set a validation part")
    return pruning.best


def _finished(search: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    return [trial for trial in search.trials if trial.state.name in ("COMPLETE", "PRUNED")]


def _line(search: optuna.Study, trials: int, metric: str) -> str:
    """How the last trial went."""
    last = search.trials[-1]
    shown = "failed" if last.value is None else f"{metric} {last.value:.4f}"
    outcome = f"{shown}, given up" if last.state.name == "PRUNED" else shown
    drawn = ", ".join(f"{name} {value}" for name, value in last.params.items())
    done = len(_finished(search))
    return f"trial {done} of {trials}: {outcome} (best {_best(search)[0]}), with {drawn}"


def _best(search: optuna.Study) -> tuple[str, optuna.trial.FrozenTrial | None]:
    if not any(trial.state.name == "COMPLETE" for trial in search.trials):
        return "none yet", None
    best = search.best_trial
    return f"{best.value:.4f}, trial {best.number}", best


def _write(search: optuna.Study, folder: Path, study: str, metric: str, mode: str, config: Sequence[str]) -> None:
    """trials.csv, a row a trial, and best.yaml."""
    names = list(dict.fromkeys(name for trial in search.trials for name in trial.params))
    table = io.StringIO(newline="")
    rows = csv.writer(table)
    rows.writerow(["trial", "state", metric, "seconds", *names])
    for trial in search.trials:
        seconds = "" if trial.duration is None else f"{trial.duration.total_seconds():.1f}"
        drawn = [trial.params.get(name, "") for name in names]
        rows.writerow([trial.number, trial.state.name.lower(), trial.value, seconds, *drawn])
    write_atomically(folder / "trials.csv", table.getvalue().encode())
    shown, best = _best(search)
    if best is not None:
        values = {name: json.loads(value) if isinstance(value, str) else value for name, value in best.params.items()}
        head = f"# {metric} {shown} of {len(search.trials)} in {Path(study).name} ({mode})\n"
        write_atomically(folder / "best.yaml", (head + yaml.safe_dump(overlay(values, merged(config)))).encode())
