import platform
from pathlib import Path

import torch

from tests.training.watched import CPU
from training.environment import append_environment, describe_environment, read_environments


def test_an_environment_names_what_figures_depend_on_and_neither_host_nor_path() -> None:
    found = describe_environment(CPU, processes=2)
    assert found["torch"] == torch.__version__
    assert found["processes"] == "2"
    assert found["device"] == "CPU"
    assert {"commit", "processor", "cores", "memory", "Python", "numpy", "onnxruntime"} <= found.keys()
    told = " ".join(found.values())
    assert platform.node() not in told.split()
    assert str(Path.home()) not in told
    assert str(Path.cwd()) not in told


def test_going_on_elsewhere_adds_a_line_and_going_on_here_does_not(tmp_path: Path) -> None:
    assert read_environments(tmp_path) == []
    here, there = {"processor": "one"}, {"processor": "another"}
    for environment in (here, here, there, there, here):
        append_environment(tmp_path, environment)
    assert read_environments(tmp_path) == [here, there, here]
