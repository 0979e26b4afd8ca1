"""Build hook: a Python module out of service/api/grpc/open_inference.proto, for wheels and editable installs.

The module keeps its messages in a pool of their own: protoc's Python would put them into the one of the process, where
a client of the same protocol in that process has put its own, and would run with the protobuf of its day only.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_FOLDER = Path("service/api/grpc")
_PROTO = "open_inference.proto"
_MODULE, _TYPES = "open_inference_pb2.py", "open_inference_pb2.pyi"
_TEXT = '''"""Made of {proto} by hatch_build.py; not to be edited, nor committed."""

from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

_pool = DescriptorPool()
_pool.AddSerializedFile({descriptor!r})

{classes}
'''


class ProtocolBuildHook(BuildHookInterface[Any]):
    """Makes the module where grpcio-tools is installed; without, the one that is there is taken, or there is none."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - the interface
        """Make the module, and have it taken into the wheel although git ignores it."""
        folder = Path(self.root) / _FOLDER
        try:
            make_module(folder)
        except ModuleNotFoundError as error:
            there = "the one that is there stays" if (folder / _MODULE).exists() else "UNIHEAD_GRPC_PORT will not work"
            self.app.display_warning(f"{error.name} is not installed, so no code for gRPC is made: {there}")
        build_data["artifacts"] += [f"/{_FOLDER / name}" for name in (_MODULE, _TYPES)]


def make_module(folder: Path) -> None:
    """Write the module and its types beside the protocol's text.

    Raises:
        ModuleNotFoundError: grpcio-tools is not installed.
        RuntimeError: protoc does not understand the text; it says why on stderr.
    """
    from google.protobuf.descriptor_pb2 import FileDescriptorSet  # noqa: PLC0415 - may not be installed
    from grpc_tools import protoc  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as temporary:
        made = Path(temporary)
        options = [f"--proto_path={folder}", f"--descriptor_set_out={made / 'set'}", f"--pyi_out={made}"]
        if protoc.main(["protoc", *options, _PROTO]):
            raise RuntimeError(f"protoc cannot read {folder / _PROTO}")
        (file,) = FileDescriptorSet.FromString((made / "set").read_bytes()).file
        names = [message.name for message in file.message_type]
        classes = "\n".join(
            f'{name} = GetMessageClass(_pool.FindMessageTypeByName("{file.package}.{name}"))' for name in names
        )
        text = _TEXT.format(proto=_PROTO, descriptor=file.SerializeToString(), classes=classes)
        _write(folder / _MODULE, text.encode())
        _write(folder / _TYPES, (made / _TYPES).read_bytes())


def _write(path: Path, content: bytes) -> None:
    """Replace a file in one step, unless it says the same: another process may read it."""
    if path.exists() and path.read_bytes() == content:
        return
    new = path.with_suffix(".new")
    new.write_bytes(content)
    new.replace(path)
