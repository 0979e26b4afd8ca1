"""Every setting of the service, once: from the environment (UNIHEAD_...), from flags, or its default."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError

from service.errors import UniheadError
from service.machine import available_cpus, find_memory_limit
from service.memory import choose_budget
from service.pictures.limits import DEFAULT_LIMITS, MOST_COUNTED, PictureLimits
from service.telemetry.logs import LogFormat
from service.words import check_hosts, check_origins, is_service_link, lower, split

ENV_PREFIX = "UNIHEAD_"
MAX_TIMEOUT_MS = 600_000
_MOST_PIXELS = 178_956_970  # beyond which Pillow refuses a WebP
# Bodies may take a half of the budget, and a picture needs some memory too.
_BODIES_IN_MEMORY = 4


class InvalidSetting(UniheadError):
    """The settings cannot be used; says in one sentence which flag or variable is wrong, and why."""


class Settings(BaseSettings):
    """Serve one unihead model file over HTTP.

    `unihead-serve health` asks a running service whether it is ready, `unihead-serve reload` to read its keys and its
    model anew; `unihead-serve key` makes keys.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        cli_prog_name="unihead-serve",
        cli_kebab_case=True,
        cli_implicit_flags="toggle",
        cli_hide_none_type=True,
        cli_show_env_vars=True,
        frozen=True,
    )

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="TCP port to listen on; 0 takes a free one")
    metrics_port: int | None = Field(
        None, ge=0, le=65535, description="TCP port of its own for /metrics, which the other port then has no more"
    )
    grpc_port: int | None = Field(None, ge=0, le=65535, description="TCP port for gRPC, which needs the extra `grpc`")
    auth: Literal["keys", "off"] | None = Field(
        None,
        description="keys: who asks needs a key. off: nobody does, whoever reaches the port. Left out: keys if there "
        "is a key file; without one only a loopback address may be listened on, and everybody there is answered",
    )
    keys: Path | None = Field(
        None, description="key file, made by `unihead-serve key new --file FILE`; who asks then needs a key of it"
    )
    share_across_keys: bool = Field(
        False,
        description="let requests of different keys share forward passes and the cache; X-Unihead-Cache, and how fast "
        "an answer comes, then tell the one that another has asked about the same picture",
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="origins like https://example.org whose pages may ask, and read answers, in a browser, separated "
        "by commas",
    )
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="names that Host may have, separated by commas: example.org, *.example.org, or * for all; "
        "addresses, localhost and names without a dot always may. Left out: these alone where a loopback address is "
        "listened on, all elsewhere",
    )
    trust_forwarded_host: bool = Field(
        False, description="compare Origin with X-Forwarded-Host, too: for a proxy that sets it and changes Host"
    )
    model: Path = Field(
        Path(__file__).parent / "models" / "unihead.onnx", description="ONNX file made by `unihead-export onnx`"
    )
    model_sha256: str | None = Field(
        None,
        pattern="^[0-9a-fA-F]{64}$",
        description="SHA-256 that the model file must have, at the start and at a reload",
    )
    golden: Literal["refuse", "warn"] = Field(
        "refuse",
        description="what to do with a model that answers otherwise about the shipped pictures than its file says: a "
        "damaged file does, and so may an execution provider that calculates less exactly",
    )
    reload_timeout_s: float = Field(
        60,
        gt=0,
        allow_inf_nan=False,
        description="seconds that reading the keys, or the model, anew may take; after that what there was stays",
    )
    pid_file: Path | None = Field(
        None, description="file that holds the process's number while it serves, for `unihead-serve reload`"
    )
    shadow: Path | None = Field(
        None, description="second model file that sees a share of the pictures, for comparison; it answers nobody"
    )
    shadow_percent: float = Field(
        5, ge=0, le=100, allow_inf_nan=False, description="of the forward passes that the shadow sees"
    )
    threads: int = Field(
        0,
        ge=0,
        description="forward passes at once, one thread each; 0 takes as many as this process has CPUs (cgroup quota)",
    )
    providers: Annotated[tuple[str, ...], NoDecode] = Field(
        ("CPUExecutionProvider",),
        min_length=1,
        description="execution providers of ONNX Runtime, separated by commas, the preferred one first",
    )
    max_batch: int = Field(
        1, ge=1, le=64, description="pictures in one forward pass at most; above 1 no gain has been measured on a CPU"
    )
    max_delay_ms: float = Field(
        2,
        ge=0,
        le=1000,
        description="milliseconds that a picture waits for others to share its pass, with max_batch > 1",
    )
    queue_limit: int = Field(64, ge=1, description="pictures that may wait for a worker; more are refused with 503")
    request_timeout_ms: int = Field(
        10_000,
        ge=1,
        le=MAX_TIMEOUT_MS,
        description="milliseconds from a body's last byte to its answer, where X-Request-Timeout-Ms says nothing",
    )
    drain_delay_s: float = Field(
        0,
        ge=0,
        le=300,
        allow_inf_nan=False,
        description="seconds from SIGTERM, when /readyz turns 503, to the end of new connections: for balancers that "
        "ask /readyz now and then",
    )
    cache_max_bytes: int = Field(
        64 * 2**20,
        ge=0,
        description="bytes of forward passes kept for the next request about the same picture; 0: none",
    )
    cache_max_age_s: float = Field(60, ge=0, description="seconds that a forward pass is kept; 0: none is")
    header_timeout_s: float = Field(
        5, gt=0, allow_inf_nan=False, description="seconds from a connection, or a request's first byte, to its header"
    )
    body_timeout_s: float = Field(
        15, gt=0, allow_inf_nan=False, description="seconds from a request's first byte to its body's last one"
    )
    write_timeout_s: float = Field(
        10, gt=0, allow_inf_nan=False, description="seconds that a client may read nothing of an answer"
    )
    max_header_bytes: int = Field(32 * 2**10, ge=1024, description="largest request line and header, in bytes")
    max_connections: int = Field(
        1024, ge=1, description="connections open at once; where none of them idles, the next is refused with 503"
    )
    memory_bytes: int = Field(
        0,
        ge=0,
        description="bytes of memory for bodies, pictures that are decoded, and answers that are made or not yet "
        "written; what does not fit waits or is refused with 503. 0 takes the cgroup's limit, or 1 GiB where there is "
        "none, less cache_max_bytes and 320 MiB for the process itself",
    )
    max_body_bytes: int = Field(10_000_000, ge=1, description="largest request body, in bytes")
    max_files: int = Field(
        16,
        ge=1,
        le=256,
        description="pictures in one form to /predict, or in one request to /v2; together they have a body's bytes",
    )
    max_pixels: int = Field(
        DEFAULT_LIMITS.max_pixels, ge=1, le=_MOST_PIXELS, description="largest picture, width times height, in pixels"
    )
    max_side: int = Field(DEFAULT_LIMITS.max_side, ge=1, description="longest side of a picture, in pixels")
    max_aspect: int = Field(
        DEFAULT_LIMITS.max_aspect, ge=1, description="times that a side may be longer than the other"
    )
    max_scans: int = Field(DEFAULT_LIMITS.max_scans, ge=1, le=MOST_COUNTED, description="scans of a progressive JPEG")
    max_scan_megapixels: int = Field(
        DEFAULT_LIMITS.max_scan_megapixels,
        ge=1,
        description="megapixels of a progressive JPEG, all its scans together; a thousand take 0.7 s",
    )
    max_frames: int = Field(
        DEFAULT_LIMITS.max_frames, ge=1, le=MOST_COUNTED, description="frames of an animation; the first is looked at"
    )
    profile: Path | None = Field(
        None,
        description="file that gets the stages of every request as trace events, for ui.perfetto.dev; slows serving",
    )
    tracing: bool = Field(
        False,
        description="send the stages of picture requests as OpenTelemetry spans; OTEL_ variables say where to; "
        "needs the extra `tracing`",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="quietest level that is logged")
    log_format: LogFormat = Field(
        "auto",
        description="of the log on stderr: json, text, or auto, which is text on a terminal and json elsewhere",
    )
    docs: bool = Field(True, description="serve /docs and /openapi.json")
    deepstack: bool = Field(True, description="answer clients of DeepStack and CodeProject.AI, below /v1")
    deepstack_max_detections: int = Field(20, ge=1, description="boxes of such an answer; Frigate fails on the 21st")
    deepstack_form_keys: bool = Field(
        False,
        description="look for the key of a request below /v1 in the form field api_key, too; the whole body is read "
        "before anybody is refused then: who has no key may fill the network and the memory for bodies",
    )

    _lower = field_validator("auth", "golden", "log_level", "log_format", mode="before")(lower)
    _split = field_validator("providers", "cors_origins", "allowed_hosts", mode="before")(split)
    _check_origins = field_validator("cors_origins")(check_origins)
    _check_hosts = field_validator("allowed_hosts")(check_hosts)

    @field_validator("port", "metrics_port", "grpc_port", mode="before")
    @classmethod
    def _ignore_service_link(cls, value: object, info: ValidationInfo) -> object:
        """The variable of a Service whose name makes it that of a setting: its pods get the default."""
        return cls.model_fields[str(info.field_name)].default if is_service_link(value) else value

    @model_validator(mode="after")
    def _check_auth(self) -> Self:
        if self.auth == "keys" and self.keys is None:
            raise ValueError("auth is `keys`, and there is no key file: name one with --keys (UNIHEAD_KEYS)")
        if self.auth == "off" and self.keys is not None:
            raise ValueError(f"auth is `off`, and {self.keys} is set as key file: leave one of them out")
        return self

    @model_validator(mode="after")
    def _check_memory(self) -> Self:
        if 0 < self.memory_bytes < _BODIES_IN_MEMORY * self.max_body_bytes:
            raise ValueError(
                f"memory_bytes is {self.memory_bytes}, and one body may have {self.max_body_bytes} (max_body_bytes): "
                f"it takes {_BODIES_IN_MEMORY} times as much; raise the one or lower the other"
            )
        return self

    @property
    def memory_budget(self) -> int:
        """`memory_bytes`, with 0 turned into what keeps the process within its limit; never too little for a body."""
        if self.memory_bytes:
            return self.memory_bytes
        rest = choose_budget(find_memory_limit(), cache=self.cache_max_bytes)
        return max(rest, _BODIES_IN_MEMORY * self.max_body_bytes)

    @property
    def picture_limits(self) -> PictureLimits:
        """What a picture may be, and may cost."""
        return PictureLimits(**{field.name: getattr(self, field.name) for field in dataclasses.fields(PictureLimits)})

    @property
    def cpu_threads(self) -> int:
        """`threads`, with 0 turned into the CPUs of this process."""
        return self.threads or available_cpus()

    @property
    def wide_threads(self) -> int:
        """Threads of a pass that has the machine for itself; beyond four the network is too small to gain."""
        return min(self.cpu_threads, 4)

    @property
    def workers(self) -> int:
        """Pictures worked on at once: more would only take CPUs from each other's passes, unless passes are shared."""
        return max(self.cpu_threads, 2 * self.max_batch if self.max_batch > 1 else 0)


def read_settings(words: Sequence[str] | None = None, **given: Path | int | None) -> Settings:
    """Read the settings: from flags, then from the environment, then their defaults.

    Args:
        words: of the command line of `unihead-serve`, which has a flag for each setting; None: of another command.
        given: settings from flags of that command; None stands for a flag that was left out.

    Raises:
        InvalidSetting: one is wrong, or two do not go together.
    """
    chosen: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    try:
        return Settings(_cli_parse_args=None if words is None else list(words), **chosen)
    except ValidationError as error:
        first = error.errors()[0]
        reason = first.get("ctx", {}).get("error") or first["msg"].lower()
        if not first["loc"]:  # two settings that do not go together
            raise InvalidSetting(str(reason)) from error
        name = str(first["loc"][0])
        variable = f"{ENV_PREFIX}{name.upper()}"
        place = variable if words is None and name not in chosen else f"--{name.replace('_', '-')} ({variable})"
        raise InvalidSetting(f"{place} is {first['input']!r}: {reason}") from error
    except SettingsError as error:
        raise InvalidSetting(str(error)) from error
