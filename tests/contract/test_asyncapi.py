"""The generated files are those of today's code, and the AsyncAPI document is valid by AsyncAPI's own parser."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from kaption_schemas.asyncapi import asyncapi
from kaption_schemas.topics import TOPICS
from tools.generate import ROOT, main

PARSER = "@asyncapi/parser@3.6.6"
VALIDATE = """
import { Parser } from '@asyncapi/parser';
import { readFileSync } from 'node:fs';
const { document, diagnostics } = await new Parser().parse(readFileSync(process.argv[2], 'utf8'));
console.log(JSON.stringify({ channels: document?.channels().all().length, diagnostics: diagnostics.map(d => d.message) }));
"""


def test_the_generated_files_are_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(check=True) == 0, capsys.readouterr().err


def test_every_topic_is_a_channel_and_every_channel_has_an_operation() -> None:
    document = asyncapi()
    assert {channel["address"] for channel in document["channels"].values()} == {topic.name for topic in TOPICS}
    used = {operation["channel"]["$ref"].rsplit("/", 1)[1] for operation in document["operations"].values()}
    assert used == set(document["channels"])


@pytest.fixture(scope="session")
def parser() -> Path:
    """AsyncAPI's parser from npm, in .cache; skips, saying so, where npm or its registry is not there."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        pytest.skip("npm is not here, so asyncapi.yaml is not validated by @asyncapi/parser")
    folder = ROOT / ".cache" / "asyncapi"
    if not (folder / "node_modules" / "@asyncapi" / "parser").is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        install = ["npm", "install", "--silent", "--no-fund", "--no-audit", "--prefix", str(folder), PARSER]
        done = subprocess.run(install, capture_output=True, text=True, timeout=240, check=False)
        if done.returncode:
            pytest.skip(f"npm could not install {PARSER}: {done.stderr[-300:]}")
    (folder / "validate.mjs").write_text(VALIDATE)
    return folder


def test_asyncapis_own_parser_finds_nothing_to_say(parser: Path) -> None:
    command = ["node", "validate.mjs", str(ROOT / "schemas" / "asyncapi.yaml")]
    done = subprocess.run(command, cwd=parser, capture_output=True, text=True, timeout=120, check=True)
    assert json.loads(done.stdout) == {"channels": len(TOPICS), "diagnostics": []}
