"""Who may import whom, read from the sources, and what an import may pull in."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# From what everything rests on to what rests on everything. A module imports from its own layer or from those above
# it in this list. A name stands for the module and all inside it; the longest name that fits counts.
LAYERS: tuple[tuple[str, ...], ...] = (
    (
        "temporal_attn",
        "temporal_attn.allocator",
        "temporal_attn.batch_check",
        "temporal_attn.checkpoints",
        "temporal_attn.naming",
        "temporal_attn.output",
        "temporal_attn.precision",
        "temporal_attn.prediction_rows",
        "temporal_attn.types",
    ),
    ("temporal_attn.attention", "temporal_attn.temporal"),
    (
        "temporal_attn.chain",
        "temporal_attn.folding",
        "temporal_attn.weights",
        "temporal_attn.nets",
        "temporal_attn.backbones",
    ),
    ("temporal_attn.two_stream",),
    ("temporal_attn.model",),
    (
        "temporal_attn.metrics",
        "temporal_attn.losses",
        "temporal_attn.distillation",
        "temporal_attn.ema",
        "temporal_attn.objective",
        "temporal_attn.optim",
        "temporal_attn.schedule",
        "temporal_attn.settings",
        "temporal_attn.evaluation",
        "temporal_attn.keyframes.ablation",
        "temporal_attn.keyframes.agreement",
        "temporal_attn.keyframes.auto",
        "temporal_attn.keyframes.curves",
        "temporal_attn.keyframes.decomposition",
        "temporal_attn.keyframes.faithfulness",
        "temporal_attn.keyframes.game",
        "temporal_attn.keyframes.gradients",
        "temporal_attn.keyframes.kernel_shap",
        "temporal_attn.keyframes.long_video",
        "temporal_attn.keyframes.reading",
        "temporal_attn.keyframes.regions",
        "temporal_attn.keyframes.removal",
        "temporal_attn.keyframes.rollout",
        "temporal_attn.keyframes.sanity",
        "temporal_attn.keyframes.scores",
        "temporal_attn.keyframes.select",
        "temporal_attn.keyframes.shapley",
        "temporal_attn.keyframes.targets",
        "temporal_attn.keyframes.third_party",
        "temporal_attn.keyframes.time_mixing",
    ),
    ("temporal_attn.module",),
    (
        "temporal_attn.callbacks",
        "temporal_attn.result_page",
        "temporal_attn.features",
        "temporal_attn.inference",
        "temporal_attn.export",
        "temporal_attn.attention_sheet",
        "temporal_attn.show_attention",
        "temporal_attn.keyframes",  # files, pictures and pages of what the modules above found
    ),
    ("temporal_attn.lightning_cli",),
    ("temporal_attn.experiment",),
    (
        "temporal_attn.demo",
        "temporal_attn.bench",
        "temporal_attn.caching",
        "temporal_attn.crossval",
        "temporal_attn.search_space",
        "temporal_attn.serve",
        "temporal_attn.tuning",
    ),
    ("temporal_attn.cli", "temporal_attn.__main__"),
)
LAYER = {name: number for number, names in enumerate(LAYERS) for name in names}

MAY_READ_VIDEOS = (
    "temporal_attn.features",
    "temporal_attn.inference",
    "temporal_attn.caching",
    "temporal_attn.experiment",
    "temporal_attn.keyframes.batch",
    "temporal_attn.keyframes.encoded_video",
    "temporal_attn.keyframes.inspect",
    "temporal_attn.keyframes.inspection",
    "temporal_attn.show_attention",
    "temporal_attn.demo",
    "temporal_attn.bench",
    "temporal_attn.serve",
    "temporal_attn.crossval",
    "temporal_attn.tuning",
    "temporal_attn.cli",
    "temporal_attn.lightning_cli",
)


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {
    module_name(path): path for package in ("temporal_attn", "datamodules") for path in (ROOT / package).rglob("*.py")
}


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def is_lazy(node: ast.AST, tree: ast.Module) -> bool:
    """Whether a package only offers the name: under TYPE_CHECKING, or in its module-level ``__getattr__``."""
    for outer in tree.body:
        lazy = (isinstance(outer, ast.If) and ast.unparse(outer.test) == "TYPE_CHECKING") or (
            isinstance(outer, ast.FunctionDef) and outer.name == "__getattr__"
        )
        if lazy and any(inner is node for inner in ast.walk(outer)):
            return True
    return False


def imports(name: str) -> list[str]:
    """Full names of the modules that a source file imports, inside functions too."""
    path = SOURCES[name]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = []
    for node in ast.walk(tree):
        if path.name == "__init__.py" and is_lazy(node, tree):
            continue
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            # `from package import module` names a module, `from module import thing` does not
            members = [f"{node.module}.{alias.name}" for alias in node.names]
            submodules = [member for member in members if member in SOURCES]
            found += submodules
            if len(submodules) < len(members):
                found.append(node.module)
    return found


def layer(name: str) -> int:
    parts = name.split(".")
    for length in range(len(parts), 1, -1):
        if ".".join(parts[:length]) in LAYER:
            return LAYER[".".join(parts[:length])]
    assert name == "temporal_attn", f"{name} is in no layer: say where it belongs in LAYERS"
    return 0


def test_the_sources_are_found():
    assert {"temporal_attn.model", "datamodules.base", "temporal_attn.keyframes"} <= set(SOURCES)
    assert "temporal_attn.types" in imports("datamodules.records.catalogue")
    assert "datamodules.dataset" in imports("temporal_attn.inference")  # inside a function


@pytest.mark.parametrize("name", sorted(name for name in SOURCES if within(name, "temporal_attn")))
def test_modules_import_from_their_own_layer_or_from_those_below(name: str):
    for imported in imports(name):
        if within(imported, "temporal_attn"):
            assert layer(imported) <= layer(name), f"{name} imports {imported}"
        if within(imported, "datamodules"):
            assert any(within(name, reader) for reader in MAY_READ_VIDEOS), f"{name} imports {imported}"


@pytest.mark.parametrize("name", sorted(name for name in SOURCES if within(name, "datamodules")))
def test_datamodules_know_nothing_but_the_shapes(name: str):
    assert {imported for imported in imports(name) if within(imported, "temporal_attn")} <= {"temporal_attn.types"}


def test_every_layer_names_what_exists_or_may_come():
    planned = {"export"}
    absent = {name for name in LAYER if name not in SOURCES}
    assert absent <= {f"temporal_attn.{name}" for name in planned}


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_nothing_imports_the_clashing_package(name: str):
    assert not [imported for imported in imports(name) if within(imported, "lightning")]


def modules_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120
    )
    return {name.split(".")[0] for name in done.stdout.split()} | set(done.stdout.split())


def test_importing_the_package_loads_nothing():
    loaded = modules_after("import temporal_attn")
    assert "temporal_attn" in loaded
    assert not loaded & {"torch", "numpy", "timm", "av", "decord", "pytorch_lightning", "jinja2", "PIL"}


def test_importing_the_datamodules_loads_no_decoder():
    loaded = modules_after("import datamodules, datamodules.base, datamodules.ucf101, datamodules.readers")
    assert "datamodules.dataset" in loaded
    assert not loaded & {"av", "decord", "timm"}


def test_importing_the_model_loads_no_decoder_and_no_backbones():
    loaded = modules_after("from temporal_attn import VideoClassifier")
    assert "temporal_attn.model" in loaded
    assert not loaded & {"av", "decord", "timm", "datamodules", "jinja2"}


def test_every_public_name_resolves():
    import temporal_attn

    for name in temporal_attn.__all__:
        assert getattr(temporal_attn, name) is not None
    assert set(temporal_attn.__all__) <= set(dir(temporal_attn))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = temporal_attn.nonsense
