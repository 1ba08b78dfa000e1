"""What is packaged, and what an installation without the compiler can do."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import echolith as el

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).parent.parent


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_directory_with_an_init_is_a_package_and_the_other_way_round():
    settings = project()["tool"]["setuptools"]
    found = {p.parent.name for p in ROOT.glob("*/__init__.py")}
    assert set(settings["package-dir"].values()) == found
    assert sorted(settings["packages"]) == sorted(settings["package-dir"])
    nested = [p for name in found for p in (ROOT / name).glob("*/**/__init__.py")]
    assert not nested, "packages are flat: a sub-package would be missing from wheels"


def test_the_checkers_see_all_packages():
    links = ROOT / ".ns" / "echolith"
    for name, folder in project()["tool"]["setuptools"]["package-dir"].items():
        if name != "echolith":
            assert (links / name.removeprefix("echolith.")).resolve() == ROOT / folder


def test_package_data_that_is_read_at_run_time_is_packaged():
    patterns = project()["tool"]["setuptools"]["package-data"]["*"]
    for path in (*(ROOT / "sim").glob("*.cpp"), *(ROOT / "compiler").glob("*.json")):
        assert any(path.match(p) for p in patterns), path


def test_the_readmes_example_runs(tmp_path):
    code = (ROOT / "README.md").read_text().split("```python\n")[1].split("```")[0]
    (tmp_path / "example.py").write_text(code)  # a file: capture quotes source lines
    done = subprocess.run([sys.executable, "example.py"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "dV/dq" in done.stdout and (tmp_path / "build" / "net.echolith").exists()


def test_the_readme_names_every_verb_and_target():
    text = (ROOT / "README.md").read_text()
    from echolith.host.cli import app

    for command in app.registered_commands:
        assert f"echolith {command.name}" in text or f"make {command.name}" in text, command.name
    for target in ("demo", "test", "lint", "slow", "bench"):
        assert f"make {target}" in text
        assert f"\n{target}:" in (ROOT / "Makefile").read_text()


class Net(nn.Module):
    states, inputs, outputs = {"q": 3}, 2, 2

    def __init__(self):
        super().__init__()
        self.W, self.B, self.C = nn.Linear(3, 4), nn.Linear(2, 4), nn.Linear(3, 2)

    def energy(self, q, u):
        return 0.5 * (q**2).sum() + torch.nn.functional.softplus(self.W(q) + self.B(u)).sum()

    def cost(self, q, y):
        return ((self.C(q) - y) ** 2).sum()


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


_HEAVY = "print(sorted({m.split('.')[0] for m in sys.modules} & {'torch', 'amaranth', 'matplotlib', 'sklearn'}))"


@pytest.mark.parametrize("module", ["session", "chip", "link", "cli", "cli_run", "doctor"])
def test_the_host_imports_neither_torch_nor_amaranth(module):
    assert python(f"import sys, echolith.host.{module}; {_HEAVY}").strip() == "[]"


def test_a_saved_design_learns_without_torch_and_amaranth(tmp_path):
    path = tmp_path / "net.echolith"
    torch.manual_seed(0)
    design = el.compile(Net(), dynamics=el.Leapfrog(0.25, 2), rule=el.HamiltonianEcho(), steps=3, lanes=2)
    design.save(path)
    code = f"""
import sys
sys.modules['torch'] = sys.modules['amaranth'] = None  # as if they were not installed
import numpy as np, echolith as el
with el.open({str(path)!r}, "int:") as chip:
    x = np.linspace(-0.5, 0.5, 24).reshape(4, 3, 2)
    chip.fit(x, x[:, 0], epochs=2, batch_size=2, learning_rate=0.01)
    print(chip.predict(x).shape)
"""
    assert python(code).strip() == "(4, 2)"


def test_the_command_line_names_the_extra_of_a_missing_package(tmp_path):
    (tmp_path / "net.py").write_text("import torch\n\ndef make():\n    return torch.nn.Linear(1, 1)\n")
    code = f"""
import sys
sys.modules['torch'] = None
sys.argv = ['echolith', 'explain', {str(tmp_path / 'net.py') + ':make'!r}]
from echolith.host.cli import main
try:
    main()
except SystemExit as error:
    print(error.code)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "1"
    assert done.stderr.strip() == "error: this needs the package torch: pip install 'echolith[compiler]'"
