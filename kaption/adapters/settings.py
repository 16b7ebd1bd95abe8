"""Reads every setting from the environment, which nothing else reads. ``KAPTION_<FIELD>`` sets a field.

docs/operations.md is generated from the descriptions below. Secrets never print.
"""

import ipaddress
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Literal, Self
from typing import Final as Const
from urllib.parse import urlsplit

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from kaption.domain.redaction.open_suffix import RECOGNISED
from kaption_schemas.topics import DEFAULT_TENANT, RESERVED_TENANTS, TENANT_PATTERN

#: Exit status of a process with wrong settings (EX_CONFIG of sysexits.h).
CONFIG_STATUS: Const = 78
_TENANT: Const = "{tenant}"


def _names(value: object) -> object:
    """Split a comma-separated list into a tuple, so that lists need no JSON in the environment."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


class Settings(BaseSettings):
    """Kaption's settings. Durations are seconds unless the name says ``_ms``."""

    model_config = SettingsConfigDict(env_prefix="KAPTION_", frozen=True, extra="ignore")

    # Kafka
    kafka: str = Field("127.0.0.1:9092", description="Bootstrap servers, HOST:PORT, comma-separated.")
    kafka_security: Literal["PLAINTEXT", "SASL_PLAINTEXT", "SASL_SSL", "SSL"] = Field(
        "PLAINTEXT", description="Security protocol of the brokers."
    )
    kafka_mechanism: Literal["SCRAM-SHA-256", "SCRAM-SHA-512", "PLAIN"] = Field(
        "SCRAM-SHA-256", description="SASL mechanism."
    )
    kafka_username: str | None = Field(None, description="SASL user.")
    kafka_password: SecretStr | None = Field(None, description="SASL password.")
    kafka_ca_file: Path | None = Field(None, description="CA certificate that signs the brokers' certificates.")
    kafka_home: Path | None = Field(
        None,
        validation_alias=AliasChoices("kafka_home", "kaption_kafka_home"),
        description="Apache Kafka 4 for `kaption up --kafka apache`; the variable KAFKA_HOME is read as well.",
    )
    delivery_seconds: Annotated[float, Field(gt=0)] = Field(
        120, description="A publisher abandons a record that the brokers have not acknowledged for this long."
    )
    group: str = Field("kaption", description="Prefix of consumer groups and transactional ids.")
    partitions: Annotated[int, Field(ge=1, le=512)] = Field(
        8, description="Partitions of every topic, 4-8 times the largest pool. Never changed on a running system."
    )
    replication: Annotated[int, Field(ge=1)] = Field(1, description="Replication factor of topics that are created.")
    tenants: Annotated[tuple[str, ...], NoDecode] = Field(
        (DEFAULT_TENANT,), description="Tenants, comma-separated; a new one needs a rolling restart."
    )
    stages: Literal["fused", "staged"] = Field(
        "fused",
        description="fused: the three stages of live audio in one process; staged: each in one of its own, with topics between them.",
    )
    # Object store
    s3: str = Field("http://127.0.0.1:8333", description="URL of the object store.")
    s3_access_key: str = Field("kaption", description="Access key.")
    s3_secret_key: SecretStr = Field(SecretStr("kaption-local"), description="Secret key.")
    s3_region: str = Field("us-east-1", description="Region that requests are signed for.")
    s3_ca_file: Path | None = Field(
        None, description="CA certificate that signs the store's certificate; unset: those that certifi ships."
    )
    media_bucket: str = Field("media", description="Bucket that files are read from.")
    media_prefix: str = Field(
        "{tenant}/", description="Prefix within the bucket that a tenant's keys must have; {tenant} is replaced."
    )
    work_bucket: str = Field("kaption", description="Bucket for normalised audio, the service's own.")
    work_expiry_days: int = Field(7, description="Orphaned normalised audio is removed after this many days.")
    # Files
    object_max_bytes: int = Field(4 << 30, description="Largest object that is read.")
    object_max_seconds: int = Field(6 * 3600, description="Longest audio of an object.")
    files_at_once: Annotated[int, Field(ge=1)] = Field(
        2,
        description="Files that a file agent decodes at once. A tenant with no file among them gets one more slot, up to twice the number.",
    )
    object_tries: Annotated[int, Field(ge=1)] = Field(
        12,
        description="Tries of an object for which the store fails while it answers for others, half a second to 15 s apart.",
    )
    decode_memory_mb: int = Field(1024, description="Memory that a decoding child may have.")
    decode_cpu_seconds: int = Field(900, description="CPU time that a decoding child may have.")
    # Runs
    redaction: Annotated[tuple[str, ...], NoDecode] = Field(
        ("CREDIT_CARD", "EMAIL_ADDRESS", "IBAN_CODE", "PHONE_NUMBER", "US_SSN"),
        description="Default redaction policy for runs that set none; Presidio entity names, comma-separated.",
    )
    idle_final_seconds: float = Field(
        8, description="Without a record for this long the open segment is finalised; a file's after 30 s at least."
    )
    idle_close_seconds: float = Field(900, description="Without a record for this long the run is closed.")
    unheard_close_seconds: float = Field(
        120, description="A live run without any frame is closed after this long without a record."
    )
    tenant_runs: Annotated[int, Field(ge=1)] = Field(
        2000, description="Live runs that a tenant may have open in one worker; more are refused."
    )
    silence_commit_seconds: float = Field(10, description="Silence is committed this often.")
    ahead_seconds: float = Field(30, description="A live run further ahead of the clock is closed.")
    # Pool
    model: str = Field("tiny.en", description="Model alias: tiny.en or base, or a folder of KAPTION_MODELS.")
    models: Path | None = Field(None, description="Folder with <alias>/model.bin; unset: the weights' packages.")
    backend: str = Field(
        "auto",
        description="faster-whisper; openvino or openvino-int8: OpenVINO's encoder with CTranslate2's decoder; auto: the "
        "fastest of these on this machine; openai-whisper.",
    )
    workers: Annotated[int, Field(ge=1)] = Field(1, description="Pool workers that `kaption up` starts.")
    executors: Annotated[int, Field(ge=1)] = Field(2, description="Batches in flight a worker, one thread each.")
    batch_size: Annotated[int, Field(ge=1)] = Field(8, description="Most windows in one batch.")
    beam_size: Annotated[int, Field(ge=1)] = Field(
        1,
        description="Beam of finals; partials are greedy. A doubtful final is decoded again with beam 5, or in a longer window if 5 was used.",
    )
    prompt_seconds: float = Field(
        0, description="The previous final prompts a live final if it ended less than this before; 0: never."
    )
    partial_step_seconds: float = Field(0.4, description="New audio that a partial waits for.")
    session_timeout_ms: int = Field(10_000, description="Consumer session timeout of agents and workers.")
    transaction_timeout_ms: int = Field(15_000, description="Transaction timeout of a lane's producer.")
    hang_seconds: float = Field(
        120, description="An agent or worker that makes no progress for this long ends, to be restarted."
    )
    executor_hang_seconds: Annotated[float, Field(gt=0)] = Field(
        30, description="A batch that takes this long, and 20 times what was expected, hangs: its executor is replaced."
    )
    # Processes
    data: Path = Field(Path(".kaption"), description="Folder of this machine's own files.")
    http_host: str = Field("127.0.0.1", description="Address of the health endpoint.")
    http_port: int = Field(0, description="Port of health, readiness and metrics; 0 takes a free one.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Level of Kaption's own logs.")
    otlp_endpoint: str | None = Field(None, description="OTLP/HTTP collector; unset sends no traces.")

    @field_validator("tenants", "redaction", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return _names(value)

    @field_validator("tenants")
    @classmethod
    def _tenants(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for tenant in value:
            if not TENANT_PATTERN.fullmatch(tenant):
                raise ValueError(f"tenant {tenant!r} must match {TENANT_PATTERN.pattern}")
            if tenant in RESERVED_TENANTS:
                raise ValueError(f"tenant {tenant!r} is a name of Kaption's own topics or groups; take another")
        if not value:
            raise ValueError("there must be one tenant at least")
        return value

    @field_validator("redaction")
    @classmethod
    def _redaction(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = sorted(set(value) - RECOGNISED)
        if unknown:
            raise ValueError(f"{', '.join(unknown)} is unknown; there are {', '.join(sorted(RECOGNISED))}")
        return value

    @field_validator("s3", "otlp_endpoint")
    @classmethod
    def _url(cls, value: str | None) -> str | None:
        parts = urlsplit(value or "")
        if "@" in parts.netloc:
            raise ValueError("a URL must not hold credentials, which logs would show; set the keys on their own")
        return value

    @model_validator(mode="after")
    def _together(self) -> Self:
        if self.group in self.tenants:
            raise ValueError("KAPTION_GROUP must not be a tenant's name: a tenant may read groups that begin with his")
        if self.work_bucket == self.media_bucket:
            raise ValueError("KAPTION_WORK_BUCKET must not be the media bucket: a tenant could read what is another's")
        if self.media_prefix and not self.media_prefix.endswith("/"):
            raise ValueError("KAPTION_MEDIA_PREFIX must end with a slash: 'acme' is the beginning of 'acme-corp/' too")
        if len(self.tenants) > 1 and _TENANT not in self.media_prefix:
            raise ValueError("KAPTION_MEDIA_PREFIX must hold {tenant}, or tenants would read each other's files")
        if self.kafka_security.startswith("SASL") and not (self.kafka_username and self.kafka_password):
            raise ValueError(
                f"KAPTION_KAFKA_SECURITY={self.kafka_security} needs KAPTION_KAFKA_USERNAME and KAPTION_KAFKA_PASSWORD"
            )
        return self

    def in_clear(self) -> tuple[str, ...]:
        """The services beyond this machine to which audio, text or passwords travel without encryption."""
        servers = () if self.kafka_security.endswith("SSL") else self.kafka.split(",")
        out = [f"kafka {server.strip()}" for server in servers if not _on_this_machine(_host(server))]
        store = urlsplit(self.s3)
        if store.scheme != "https" and not _on_this_machine(store.hostname or ""):
            out.append(f"object store {self.s3}")
        return tuple(out)

    def transactional_id(self, topic: str, partition: int) -> str:
        """Return a lane's transactional id, the same for every owner, so that a new owner fences the last."""
        return f"kaption-{self.group}-{topic}-{partition}"


#: Variables that a third-party program may need: paths and language. Tokens of other tools stay out.
_HARMLESS = ("PATH", "LANG", "LANGUAGE", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "JAVA_HOME")
_HARMLESS_PREFIXES = ("LC_", "KAFKA_")


def harmless_environment() -> dict[str, str]:
    """Return the part of this process's environment that a third-party child gets."""
    return {
        name: value for name, value in os.environ.items() if name in _HARMLESS or name.startswith(_HARMLESS_PREFIXES)
    }


def _host(server: str) -> str:
    """Return the host of ``HOST:PORT``, or of ``HOST``, for which a Kafka client uses its default port."""
    host, _, port = server.rpartition(":")
    return host if port.strip().isdigit() else server


def _on_this_machine(host: str) -> bool:
    host = host.strip().strip("[]").lower()
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in ("", "localhost") or host.endswith(".localhost")


def explain(error: ValidationError) -> str:
    """Say in a line which setting is wrong and why; never its value, which may be a secret."""
    first = error.errors(include_input=False, include_url=False)[0]
    name = "_".join(str(part) for part in first["loc"][:1]).upper()
    message = first["msg"].removeprefix("Value error, ")
    return f"the setting KAPTION_{name} is not right: {message}" if name else f"the settings are not right: {message}"


def service_settings(process: str) -> Settings:
    """Read the settings of an agent or worker; a wrong one ends the process with a log line and status 78."""
    try:
        return Settings()
    except ValidationError as error:
        line = {"level": "CRITICAL", "process": process, "event": "settings_refused", "error": explain(error)}
        sys.stderr.write(json.dumps(line) + "\n")
        sys.exit(CONFIG_STATUS)


def child_environment(settings: Settings) -> dict[str, str]:
    """Return the environment for a child process: this one's, with every ``KAPTION_*`` as in ``settings``.

    Secrets travel here and never in a command line, which every user of the machine can read.
    """
    out = {name: value for name, value in os.environ.items() if not name.upper().startswith("KAPTION_")}
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if value is not None:
            out[f"KAPTION_{name.upper()}"] = _plain(value)
    return out


def _plain(value: object) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return ",".join(value) if isinstance(value, tuple) else str(value)
