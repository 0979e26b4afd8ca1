import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from tests.training.fakes import make_batch, make_config
from tests.training.watched import assert_same_run, assert_same_tensors
from training.checkpoint import CHECKPOINT_NAME, load_checkpoint
from training.cli import app
from training.config import ConfigError, Task
from training.distributed import ALONE, DistributedError, FabricWorkers, connect

CPU = torch.device("cpu")

# Nothing here is divided by anything but pictures, and two processes get two pictures and one.
CLASSIFY = """
preset = "shared-out"
input_size = 64
[model]
backbone_weights = "random"
neck = "fpn"
neck_channels = 16
head = "branches"
dropout = 0.0
[[stages]]
task = "classification"
epochs = 2
batch_size = 3
learning_rate = 1e-3
lr_factors = { backbone = 1.0 }
freeze_batch_norm = true
ema = 0.5
"""

# Everything that goes on beside the step of a stage.
EVERYTHING = """
preset = "everything"
input_size = 64
[model]
backbone_weights = "random"
neck = "fpn"
neck_channels = 16
head = "branches"
[[stages]]
task = "segmentation"
epochs = 1
batch_size = 3
[[stages]]
task = "detection"
epochs = 1
batch_size = 3
ewc = { strength = { segmentation = 1.0 } }
replay = { pictures = 2 }
agem = { pictures = 2 }
averaging = 0.5
[polish]
epochs = 1
batch_size = 3
tolerance = 1.0
"""


class FakeFabric:
    """One of two processes, whose partner is known beforehand."""

    device = CPU
    world_size = 2

    def __init__(self, rank: int, partner: Tensor | None = None, values: Sequence[Mapping[str, float]] = ()) -> None:
        self.global_rank = rank
        self.reduced: list[Tensor] = []
        self._partner = partner
        self._values = values

    def all_reduce(self, tensor: Tensor, *, reduce_op: str) -> None:
        self.reduced.append(tensor.clone())
        if self._partner is not None:
            both = torch.stack([tensor, self._partner])
            tensor.copy_({"sum": both.sum(dim=0), "max": both.amax(dim=0)}[reduce_op])

    def broadcast(self, value: Any, src: int) -> Any:  # noqa: ANN401 - whatever it is given
        del value
        return self._values[src]


def make_workers(*arguments: Any, **named: Any) -> FabricWorkers:  # noqa: ANN401 - of the fake
    return FabricWorkers(FakeFabric(*arguments, **named))  # type: ignore[arg-type]  # a fake


@pytest.mark.parametrize("task", list(Task))
def test_the_processes_share_a_batch_out_among_them(task: Task) -> None:
    batch = make_batch(task, 5)
    shards = [make_workers(rank).shard(batch) for rank in range(2)]
    assert [shard.indices.tolist() for shard in shards] == [[0, 2, 4], [1, 3]]
    for shard in shards:
        assert len(shard.targets) == len(shard.indices)
        assert torch.equal(shard.images, batch.images[shard.indices])
    assert [make_workers(rank).share(5) for rank in range(2)] == [3 / 5, 2 / 5]


def test_who_finds_nothing_left_takes_the_first_picture_and_has_no_say() -> None:
    batch = make_batch(Task.CLASSIFICATION, 1)
    assert make_workers(1).shard(batch).indices.tolist() == [0]
    assert [make_workers(rank).share(1) for rank in range(2)] == [1, 0]


def make_layers() -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3).eval(), nn.Flatten(), nn.Linear(12, 2))
    return layers, torch.randn(5, 1, 4, 4), torch.randint(0, 2, (5,))


def compute_loss(layers: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    return nn.functional.cross_entropy(layers(inputs), labels)


def average_two(make: Callable[[], nn.Module], learn: Callable[[nn.Module, int], None]) -> nn.Module:
    """What the first of two processes has after both have learned, each by itself, from five pictures."""
    sent: list[Tensor] = []
    for rank in (1, 0):
        model, fabric = make(), FakeFabric(rank, sent[0] if sent else None)
        learn(model, rank)
        workers = FabricWorkers(fabric)  # type: ignore[arg-type]  # a fake
        workers.average(model, workers.share(5))
        sent += fabric.reduced
    return model


def test_averaged_gradients_are_those_of_the_whole_batch() -> None:
    layers, inputs, labels = make_layers()
    whole = torch.autograd.grad(compute_loss(layers, inputs, labels), list(layers.parameters()))

    def learn(model: nn.Module, rank: int) -> None:
        compute_loss(model, inputs[rank::2], labels[rank::2]).backward()  # type: ignore[no-untyped-call]  # torch's, untyped

    averaged = average_two(lambda: make_layers()[0], learn)
    for parameter, expected in zip(averaged.parameters(), whole, strict=True):
        torch.testing.assert_close(parameter.grad, expected)


def test_statistics_are_averaged_where_they_move() -> None:
    def make() -> nn.Module:
        return nn.ModuleList([nn.BatchNorm2d(1), nn.BatchNorm2d(1).eval()])

    def learn(model: nn.Module, rank: int) -> None:
        for norm in model.children():
            norm(torch.full((2, 1, 1, 1), 10.0 * (1 + rank)))

    moving, still = (norm.get_buffer("running_mean").item() for norm in average_two(make, learn).children())
    # A tenth of the way from 0: to 10 where three pictures were seen, to 20 where two.
    assert moving == pytest.approx(0.6 * 1 + 0.4 * 2)
    assert still == 0


def test_what_no_process_has_a_gradient_of_keeps_none() -> None:
    def make() -> nn.Module:
        mine, others, nobodys, frozen = (nn.Parameter(torch.ones(2)) for _ in range(4))
        frozen.requires_grad = False
        return nn.ParameterList([mine, others, nobodys, frozen])

    def learn(model: nn.Module, rank: int) -> None:
        list(model.parameters())[rank].grad = torch.tensor([1.0, 2.0])

    gradients = [parameter.grad for parameter in average_two(make, learn).parameters()]
    assert gradients[2:] == [None, None]
    assert torch.stack([each for each in gradients[:2] if each is not None]).tolist() == [
        pytest.approx([0.6, 1.2]),
        pytest.approx([0.4, 0.8]),
    ]


def test_values_are_added_by_name_even_if_a_process_lacks_one() -> None:
    values = [{"loss": 1.0, "teacher": 0.5}, {"loss": 2.0}]
    assert make_workers(0, values=values).add(values[0]) == {"loss": 3.0, "teacher": 0.5}


def test_what_each_process_has_is_gathered_by_rank() -> None:
    values = [{"loss": 1.0}, {"loss": 2.0}]
    assert make_workers(1, values=values).gather(values[1]) == values
    assert ALONE.gather(values[0]) == values[:1]


def test_the_greatest_wish_of_all_processes_counts() -> None:
    assert [make_workers(0, torch.tensor(other)).find_greatest(2) for other in (1, 4)] == [2, 4]
    assert ALONE.find_greatest(3) == 3


@pytest.mark.parametrize("method", [{"balance": "uncertainty"}, {"surgery": "pcgrad"}], ids=str)
def test_what_looks_at_the_losses_of_one_process_is_refused(method: dict[str, str]) -> None:
    config = make_config(stages=[{"task": "classification", "epochs": 1, **method}])
    ALONE.check(config)
    with pytest.raises(ConfigError, match="several processes need 'fixed' and 'none'"):
        make_workers(0).check(config)


@pytest.mark.parametrize("world_size", [None, "1"])
def test_one_process_is_alone_and_needs_no_fabric(monkeypatch: pytest.MonkeyPatch, world_size: str | None) -> None:
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    if world_size:
        monkeypatch.setenv("WORLD_SIZE", world_size)
    workers = connect(CPU)
    assert workers is ALONE
    batch = make_batch(Task.DETECTION)
    assert workers.shard(batch) is batch
    assert (workers.share(3), workers.is_main, workers.choose_device(CPU)) == (1.0, True, CPU)


def test_several_processes_without_fabric_are_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(DistributedError, match=r"pip install 'unihead\[distributed\]'"):
        connect(CPU)


def test_several_processes_without_torchrun_are_told_to_use_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    with pytest.raises(DistributedError, match="start with torchrun"):
        connect(CPU)


# Only the second process is asked to stop, at its first step; no clock decides when that is.
ONE_WANTS_TO_STOP = """
import os
from training.cli import main
from training.stopping import Watch, Wish
Watch.look = lambda watch: Wish.STOP_BY_CLOCK if os.environ["RANK"] == "1" else Wish.NOTHING
main()
"""


class Train(Protocol):
    """Trains a preset on so many processes; gives the folder of the run."""

    def __call__(self, preset: str, processes: int, *options: str, code: int = 0, script: str = "") -> Path: ...


@pytest.fixture
def train(tiny_sets: Path, tmp_path: Path) -> Train:
    """Trains a preset on so many processes; gives the folder of the run."""

    def run(preset: str, processes: int, *options: str, code: int = 0, script: str = "") -> Path:
        path, out = tmp_path / "preset.toml", tmp_path / f"run-{processes}"
        path.write_text(preset)
        chosen = options or ("--preset", str(path))
        words = ["run", "--data", str(tiny_sets), "--out", str(out), "--device", "cpu", *chosen]
        if processes == 1:
            done = CliRunner().invoke(app, words)
            assert done.exit_code == 0, done.output
            return out
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
        program = ["-m", "training"]
        if script:
            program = [str(tmp_path / "program.py")]
            Path(program[0]).write_text(script)
        command = [sys.executable, *torchrun, *program, *words]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
        told = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            env=environment,
            cwd=Path(__file__).parents[2],
        )
        assert told.returncode == code, told.stdout + told.stderr
        assert told.stdout.count("report: ") == (1 if code == 0 else 0)
        return out

    return run


@pytest.mark.slow
def test_two_processes_train_the_run_that_one_trains(train: Train) -> None:
    pytest.importorskip("lightning_fabric", reason="the extra `distributed` is not installed")
    folders = [train(CLASSIFY, processes) for processes in (1, 2)]
    alone, together = (load_checkpoint(folder / CHECKPOINT_NAME) for folder in folders)
    assert alone.model.keys() == together.model.keys()
    for name, value in alone.model.items():
        torch.testing.assert_close(together.model[name], value, atol=1e-5, rtol=1e-5, msg=name)
    losses = [[entry["losses"] for entry in run.history if entry["kind"] == "epoch"] for run in (alone, together)]
    for one, other in zip(*losses, strict=True):
        assert other == pytest.approx(one, abs=1e-5)
    files = [
        sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if "tfevents" not in path.name)
        for folder in folders
    ]
    assert files[0] == files[1]
    assert len(list((folders[1] / "tensorboard").iterdir())) == 1


@pytest.mark.slow
def test_all_that_a_run_does_is_done_by_two_processes_and_a_finished_run_resumed_stays_as_it_is(train: Train) -> None:
    pytest.importorskip("lightning_fabric", reason="the extra `distributed` is not installed")
    out = train(EVERYTHING, 2)
    finished = load_checkpoint(out / CHECKPOINT_NAME)
    kinds = [(entry["kind"], entry["stage"]) for entry in finished.history]
    stages = [(kind, stage) for stage in ("segmentation", "detection") for kind in ("epoch", "evaluation")]
    assert kinds == [*stages, *((kind, "polish") for kind in ("epoch", "polish", "evaluation"))]
    train(EVERYTHING, 2, "--resume")
    assert_same_tensors(load_checkpoint(out / CHECKPOINT_NAME).model, finished.model)


@pytest.mark.slow
def test_two_processes_stop_at_the_same_step_and_go_on_to_the_same_end(train: Train, tmp_path: Path) -> None:
    pytest.importorskip("lightning_fabric", reason="the extra `distributed` is not installed")
    alone = train(EVERYTHING, 2).rename(tmp_path / "alone")
    # Torchrun's own exit code is 1.
    out = train(EVERYTHING, 2, "--preset", str(tmp_path / "preset.toml"), code=1, script=ONE_WANTS_TO_STOP)
    position = load_checkpoint(out / CHECKPOINT_NAME).position
    assert position is not None
    assert (position["steps"], len(position["processes"])) == (1, 2)
    train(EVERYTHING, 2, "--resume")
    assert_same_run(out, alone)
