"""Hugging Face's package `kernels` beside ours.

transformers imports it when installed, so a package `kernels` of our own would be taken for it; ours is a
folder without ``__init__.py``, which any real package of that name wins over.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from transformers.utils import import_utils

ROOT = Path(__file__).parents[1]
NAMES = """
class _Anything:
    def __init__(self, *args, **kwargs): pass
CUDAProperties = Device = KernelizeFallback = LayerRepository = LocalLayerRepository = _Anything
FuncRepository = LocalFuncRepository = ROCMProperties = use_kernel_mapping = _Anything
from .layer.mode import Mode
def _decorator(*args, **kwargs): return lambda target: target
def _nothing(*args, **kwargs): return None
replace_kernel_forward_from_hub = register_kernel_mapping = get_kernel = kernelize = _nothing
use_kernel_forward_from_hub = use_kernel_func_from_hub = use_kernelized_func = _decorator
"""


@pytest.fixture
def beside(tmp_path: Path) -> Path:
    """A folder with a distribution named kernels, of a version that transformers accepts."""
    version = import_utils.KERNELS_MIN_VERSION
    package = tmp_path / "kernels"
    (package / "layer").mkdir(parents=True)
    (package / "__init__.py").write_text(NAMES)
    (package / "layer" / "__init__.py").write_text("")
    (package / "layer" / "mode.py").write_text(
        "import enum\nclass Mode(enum.Flag):\n    TRAINING = INFERENCE = 1\n"
    )
    metadata = tmp_path / f"kernels-{version}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: kernels\nVersion: {version}\n")
    return tmp_path


def python(beside: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    paths = [str(ROOT / "kernels"), str(beside), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )


def test_transformers_takes_the_real_package(beside: Path) -> None:
    done = python(
        beside,
        "-c",
        "import kernels, fedpl_kernels\n"
        "from transformers.utils.import_utils import is_kernels_available\n"
        "assert is_kernels_available(), 'the stub is not in the accepted range'\n"
        "import transformers.integrations.hub_kernels\n"
        "print(kernels.__file__)\n",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(beside / "kernels" / "__init__.py")


def test_the_main_job_runs_from_the_repository_root(
    beside: Path, small_run: list[str], tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    done = python(beside, "-m", "fedpl.fit", *small_run, "--baselines=[]", f"--run_dir={run_dir}")
    assert done.returncode == 0, done.stderr
    assert (run_dir / "summary.json").is_file()


def test_a_package_of_our_own_with_that_name_would_break_transformers(beside: Path, tmp_path: Path) -> None:
    """The trap itself, so that the two tests above cannot pass for another reason."""
    shadow = tmp_path / "shadow"
    (shadow / "kernels").mkdir(parents=True)
    (shadow / "kernels" / "__init__.py").write_text("")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(shadow), str(beside)])}
    done = subprocess.run(
        [sys.executable, "-c", "import transformers.integrations.hub_kernels"],
        cwd=shadow,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert "cannot import name 'CUDAProperties'" in done.stderr
