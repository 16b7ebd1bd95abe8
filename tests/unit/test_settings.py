"""Settings under which tenants or secrets would not be safe, or nothing would work, are refused; no value is shown."""

import os
import subprocess
import sys

import pytest
from pydantic import ValidationError

from kaption.adapters.settings import CONFIG_STATUS, Settings, explain


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"redaction": "PHONE_NUMBER,SHOE_SIZE"}, "KAPTION_REDACTION is not right: SHOE_SIZE is unknown"),
        ({"tenants": "audio"}, "Kaption's own"),
        ({"tenants": "acme,transcripts"}, "Kaption's own"),
        ({"tenants": "media"}, "Kaption's own"),
        ({"tenants": "kaption"}, "Kaption's own"),
        ({"tenants": ""}, "one tenant"),
        ({"tenants": "acme", "group": "acme"}, "KAPTION_GROUP"),
        ({"work_bucket": "media"}, "KAPTION_WORK_BUCKET"),
        ({"media_prefix": "{tenant}"}, "slash"),
        ({"media_prefix": "in/", "tenants": "acme,globex"}, "{tenant}"),
        ({"s3": "https://user:secret@store"}, "credentials"),
        ({"otlp_endpoint": "https://user:secret@collector"}, "credentials"),
        ({"kafka_security": "SASL_SSL", "kafka_username": "kaption"}, "KAPTION_KAFKA_PASSWORD"),
    ],
)
def test_what_is_not_right_is_named(fields: dict[str, str], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Settings(**fields)  # type: ignore[arg-type]  # as the environment has them
    assert said in explain(caught.value)
    assert "secret@" not in explain(caught.value)


def test_what_is_fine() -> None:
    assert Settings(tenants="default,acme", media_prefix="in/{tenant}/").tenants == ("default", "acme")
    assert Settings(media_prefix="in/").media_prefix == "in/"
    assert Settings(media_prefix="").media_prefix == ""


@pytest.mark.parametrize(
    ("fields", "clear"),
    [
        ({}, ()),
        ({"kafka": "localhost:9092,[::1]:9093,127.0.0.2:1"}, ()),
        ({"kafka": "127.0.0.1:9092,broker:9092"}, ("kafka broker:9092",)),
        ({"kafka": "broker:9092", "kafka_security": "SSL"}, ()),
        ({"s3": "http://store:9000"}, ("object store http://store:9000",)),
        ({"s3": "https://store:9000"}, ()),
        ({"kafka": "broker,[::1]:9092,localhost"}, ("kafka broker",)),
    ],
)
def test_what_travels_in_clear_is_told(fields: dict[str, str], clear: tuple[str, ...]) -> None:
    assert Settings(**fields).in_clear() == clear  # type: ignore[arg-type]


@pytest.mark.parametrize("program", [["kaption_streams", "live"], ["kaption_streams", "files"], ["kaption_gpu"]])
def test_a_service_says_so_and_ends(program: list[str]) -> None:
    environment = os.environ | {"KAPTION_REDACTION": "SHOE_SIZE"}
    ended = subprocess.run(
        [sys.executable, "-m", *program], env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == CONFIG_STATUS
    assert "SHOE_SIZE is unknown" in ended.stderr
    assert "Traceback" not in ended.stderr
