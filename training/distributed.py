"""One run on several processes: what each of them takes of a batch, and how their gradients become one.

torchrun starts the processes; lightning-fabric, an extra that one process alone does not need, connects them. They all
go the same way with the same seed: every process draws the same batches, learns from its share of the rows, and takes
the same step, for gradients are averaged. The first process alone writes files.

It is the step of one process wherever a loss is a mean over pictures. It is not quite where a loss is divided by what
it found in the batch (mask cells that are not void, points with an object), where batch-norm is live (each process
normalises by the statistics of its share, for `SyncBatchNorm` is for CUDA only), and with dropout. Pictures are decoded
and augmented by every process, measuring is done by all: what is shared is learning.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import nn

from training.config import Config, ConfigError
from training.data.batches import Batch

if TYPE_CHECKING:
    from lightning_fabric import Fabric

T = TypeVar("T")


class DistributedError(RuntimeError):
    """Several processes were asked for, and cannot be connected."""


class Workers:
    """The processes of a run, seen from one of them. This class: there is only one, so there is nothing to do.

    Attributes:
        rank: of this process, from 0.
        world_size: how many there are.
    """

    rank = 0
    world_size = 1

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and talks."""
        return self.rank == 0

    def check(self, config: Config) -> None:
        """Refuse what several processes cannot do as one does.

        Raises:
            ConfigError: a stage weighs its losses, or mends their gradients, by what it has seen itself.
        """

    def choose_device(self, device: torch.device) -> torch.device:
        """This process's own among the devices of a kind."""
        return device

    def shard(self, batch: Batch) -> Batch:
        """This process's rows of a batch: rank, rank + world_size, ...; the first one where there are none left."""
        return batch

    def share(self, pictures: int) -> float:
        """How much of a batch of so many pictures is this process's, 0..1; they sum to 1."""
        del pictures
        return 1.0

    def average(self, model: nn.Module, share: float) -> None:
        """Give all processes the mean, weighted by shares, of their gradients and of batch-norm's moving statistics."""

    def add(self, values: Mapping[str, float]) -> dict[str, float]:
        """Add up what the processes have, name by name; some may lack a name."""
        return dict(values)

    def gather(self, value: T) -> list[T]:
        """What each process has, by rank."""
        return [value]

    def find_greatest(self, value: int) -> int:
        """The greatest that a process has."""
        return value

    def broadcast(self, value: T) -> T:
        """What the first process has."""
        return value

    def unify(self, model: nn.Module) -> None:
        """Give all processes the first one's weights, from which theirs may have drifted by rounding."""

    def barrier(self) -> None:
        """Wait until all processes are here."""


ALONE = Workers()


class FabricWorkers(Workers):
    """Several processes, connected by lightning-fabric."""

    def __init__(self, fabric: Fabric) -> None:
        """Take part; the fabric has been launched."""
        self._fabric = fabric
        self.rank = fabric.global_rank
        self.world_size = fabric.world_size

    def check(self, config: Config) -> None:
        """As `Workers`."""
        for stage in config.stages:
            if stage.balance != "fixed" or stage.surgery != "none":
                raise ConfigError(
                    f"stage {stage.task} has balance {stage.balance!r} and surgery {stage.surgery!r}, which look at "
                    "the losses or gradients of one process; several processes need 'fixed' and 'none'"
                )

    def choose_device(self, device: torch.device) -> torch.device:
        """As `Workers`."""
        del device
        return self._fabric.device

    def shard(self, batch: Batch) -> Batch:
        """As `Workers`."""
        return batch.select(range(len(batch.images))[self.rank :: self.world_size] or [0])

    def share(self, pictures: int) -> float:
        """As `Workers`."""
        return len(range(self.rank, pictures, self.world_size)) / pictures

    @torch.no_grad()
    def average(self, model: nn.Module, share: float) -> None:
        """As `Workers`; what no process has a gradient of keeps None, so that optimisers pass it over."""
        learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
        gradients = [torch.zeros_like(each) if each.grad is None else each.grad for each in learning]
        moving = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d) and module.training]
        statistics = [value for norm in moving for value in (norm.running_mean, norm.running_var) if value is not None]
        there = torch.tensor([float(each.grad is not None) for each in learning], device=self._fabric.device)
        # One message: each costs more by its number than by its length.
        parts = [*(share * value for value in (*gradients, *statistics)), there]
        message = torch.cat([part.flatten() for part in parts])
        self._fabric.all_reduce(message, reduce_op="sum")
        sums = torch.split(message, [part.numel() for part in parts])
        for parameter, total, processes in zip(learning, sums, sums[-1].tolist(), strict=False):
            parameter.grad = torch.empty_like(parameter).copy_(total.view(parameter.shape)) if processes else None
        for value, total in zip(statistics, sums[len(learning) : -1], strict=True):
            value.copy_(total)

    def add(self, values: Mapping[str, float]) -> dict[str, float]:
        """As `Workers`."""
        sums: dict[str, float] = {}
        for part in self.gather(dict(values)):
            for name, value in part.items():
                sums[name] = sums.get(name, 0.0) + value
        return sums

    def gather(self, value: T) -> list[T]:
        """As `Workers`."""
        return [self._fabric.broadcast(value, src=rank) for rank in range(self.world_size)]

    def find_greatest(self, value: int) -> int:
        """As `Workers`."""
        greatest = torch.tensor(value, device=self._fabric.device)
        self._fabric.all_reduce(greatest, reduce_op="max")
        return int(greatest)

    def broadcast(self, value: T) -> T:
        """As `Workers`."""
        return self._fabric.broadcast(value)

    def unify(self, model: nn.Module) -> None:
        """As `Workers`."""
        model.load_state_dict(self.broadcast({name: value.cpu() for name, value in model.state_dict().items()}))

    def barrier(self) -> None:
        """As `Workers`."""
        self._fabric.barrier()


def connect(device: torch.device) -> Workers:
    """Join the processes that torchrun has started; without it, or with one process, there is nobody to join.

    Args:
        device: of which kind each process is to have one.

    Raises:
        DistributedError: lightning-fabric is not installed, or something else than torchrun has set WORLD_SIZE.
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1:
        return ALONE
    if "LOCAL_WORLD_SIZE" not in os.environ:
        raise DistributedError(f"WORLD_SIZE is {world_size}, but this is not torchrun's doing; start with torchrun")
    try:
        from lightning_fabric import Fabric  # noqa: PLC0415 - an extra that one process does not need
    except ModuleNotFoundError as error:
        raise DistributedError(
            f"{error.name} is not installed, which {world_size} processes need; pip install 'unihead[distributed]'"
        ) from error
    local = int(os.environ["LOCAL_WORLD_SIZE"])
    fabric = Fabric(accelerator=device.type, devices=local, num_nodes=world_size // local, strategy="ddp")
    fabric.launch()
    return FabricWorkers(fabric)
