"""Files and directories that a user names: refused before anything long is done for them."""

import re
from pathlib import Path

import numpy as np
import pytest
from networks import Oscillators

import echolith as el
from echolith.compiler.paths import folder, writable

X, Y = np.random.default_rng(0).uniform(-1, 1, (6, 3, 2)), np.eye(2)[[0, 1, 0, 1, 0, 1]]


@pytest.fixture(scope="module")
def design():
    return el.compile(Oscillators(4, 3, 2, 2), dynamics=el.Leapfrog(0.25), rule=el.HamiltonianEcho(),
                      calibrate=(X, Y), lanes=2)


def refused(message):
    return pytest.raises(el.FileError, match=f"^{re.escape(message)}$")


@pytest.mark.parametrize("path", [None, 3, "", b"a"])
def test_what_names_no_file_is_refused(design, path):
    chip = design.open()
    for call in (design.save, design.export, design.build, el.load, el.open, chip.save, chip.restore,
                 design.precision_report(X).save):
        with refused("a file or directory is named by a text, not empty, or a pathlib.Path, not " + repr(path)):
            call(path)


def test_directories_of_files_are_made(tmp_path):
    assert writable(tmp_path / "a" / "b.echolith") == tmp_path / "a" / "b.echolith"
    assert list((tmp_path / "a").iterdir()) == []
    assert writable("/dev/null") == Path("/dev/null")
    assert folder(str(tmp_path / "c" / "d")).is_dir()


def test_what_cannot_be_written_is_refused(design, tmp_path):
    file, inside = tmp_path / "file", tmp_path / "file" / "x.echolith"
    file.write_text("x")
    with refused(f"cannot write {inside}: [Errno 17] File exists: '{file}'"):
        design.save(inside)
    with refused(f"a file is needed; name one in the directory, not {tmp_path}"):
        design.save(tmp_path)
    with refused(f"cannot make the directory {file}: [Errno 17] File exists: '{file}'"):
        design.build(file)
    with refused(f"cannot write {inside.with_suffix('.json')}: [Errno 17] File exists: '{file}'"):
        design.precision_report(X).save(inside.with_suffix(".json"))


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="a directory that takes no files, not even root's")
def test_a_directory_that_takes_no_files_is_told(design):
    with pytest.raises(el.FileError, match=r"^cannot write /proc/x\.echolith: \[Errno 2\] No such file or directory: "):
        design.save("/proc/x.echolith")


def test_a_checkpoint_that_cannot_be_written_is_found_before_learning(design, tmp_path):
    (tmp_path / "file").write_text("x")
    with design.open() as chip:
        before = chip.state_dict()
        for path, text in ((tmp_path, f"a file is needed; name one in the directory, not {tmp_path}"),
                           (tmp_path / "file" / "x", f"cannot write {tmp_path / 'file' / 'x'}: [Errno 17] File exists: "
                                                     f"'{tmp_path / 'file'}'")):
            with refused(text):
                chip.fit(X, Y, checkpoint=path)
        for name, value in chip.state_dict().items():
            np.testing.assert_array_equal(value, before[name])
        chip.fit(X, Y, checkpoint=tmp_path / "runs" / "1" / "x.ckpt")
        chip.restore(tmp_path / "runs" / "1" / "x.ckpt")
