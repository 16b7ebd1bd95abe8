"""``kaption topics`` creates or checks the map's topics on a broker."""

import asyncio
import json

import click

from kaption.adapters.kafka import topics
from kaption.adapters.settings import Settings
from kaption.cli.exits import Exit, Failed, load_settings
from kaption.cli.reach import broker

_KAFKA = click.option("--kafka", metavar="HOST:PORT", help="Bootstrap servers [KAPTION_KAFKA].")
_JSON = click.option("--json", "as_json", is_flag=True, help="As one JSON object.")


@click.group()
def command() -> None:
    """Create or check the topics on the broker.

    Names, partitions, retention and limits are those of the topic map (schemas/kaption_schemas/topics.py), for every
    tenant in KAPTION_TENANTS.
    """


@command.command()
@_KAFKA
@click.option("--partitions", type=click.IntRange(1, 512), help="Partitions of each topic [KAPTION_PARTITIONS].")
@click.option("--replication", type=click.IntRange(1), help="Copies of each partition [KAPTION_REPLICATION].")
@click.option("--stages", type=click.Choice(["fused", "staged"]), help="staged has two topics more [KAPTION_STAGES].")
@_JSON
def create(
    kafka: str | None, partitions: int | None, replication: int | None, stages: str | None, as_json: bool
) -> None:
    """Create the missing topics; check those that exist, and never change them."""
    settings = load_settings(kafka=kafka, partitions=partitions, replication=replication, stages=stages)
    created = asyncio.run(_create(settings))
    if as_json:
        click.echo(json.dumps({"created": list(created)}))
        return
    for name in created:
        click.echo(f"created {name}")
    if not created:
        click.echo("every topic exists as it should")


@command.command()
@_KAFKA
@click.option("--stages", type=click.Choice(["fused", "staged"]), help="staged has two topics more [KAPTION_STAGES].")
@_JSON
def check(kafka: str | None, stages: str | None, as_json: bool) -> None:
    """Compare the broker's topics with the map; each difference comes with its remedy. Status 78 if there is one."""
    settings = load_settings(kafka=kafka, stages=stages)
    problems = asyncio.run(_check(settings))
    if as_json:
        found = [{"topic": one.topic, "what": one.what, "remedy": one.remedy} for one in problems]
        click.echo(json.dumps({"problems": found}))
        if problems:
            raise SystemExit(int(Exit.CONFIG))
    elif problems:
        raise Failed(Exit.CONFIG, "\n".join(str(problem) for problem in problems))
    else:
        click.echo("every topic is as it should be")


async def _create(settings: Settings) -> tuple[str, ...]:
    async with broker(settings):
        return await topics.create(settings)


async def _check(settings: Settings) -> tuple[topics.Problem, ...]:
    async with broker(settings):
        return await topics.check(settings)
