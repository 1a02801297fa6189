"""Ranks on several hosts, named by the rank table; links that are cut and healed."""

import http.client
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from export_rank_models import WEIGHT
from hosts import Hosts, why_not
from rank_servable import RankServable, rows, wait_until

Parts = Callable[..., list[Path]]
Make = Callable[..., RankServable]

BACK_SECONDS = 240
ANSWERED_SECONDS = 40


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    """Four of them; the server is on the first."""
    if reason := why_not():
        pytest.skip(reason)
    with Hosts(4) as made:
        yield made


def ask(hosts: Hosts, servable: RankServable, seed: int) -> str:
    """One checked request over REST, from the server's own host; "" or the error that was answered."""
    values = rows(3, seed)

    def send() -> tuple[int, bytes]:
        host, _, port = servable.server.rest_address.rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=ANSWERED_SECONDS)
        try:
            body = json.dumps({"instances": [{"x": row.tolist()} for row in values]})
            connection.request("POST", "/model/ranks:predict", body)
            reply = connection.getresponse()
            return reply.status, reply.read()
        finally:
            connection.close()

    status, text = hosts.run(1, send)
    answer = json.loads(text)
    errors = [str(one["error_msg"]) for one in answer.get("instances", [answer]) if "error_msg" in one]
    if status != 200 or errors:
        return str(errors or text)
    np.testing.assert_allclose([one["y"] for one in answer["instances"]], values @ WEIGHT, rtol=1e-4, atol=1e-4)
    return ""


def start(hosts: Hosts, make_servable: Make, parts: Parts, name: str, rank_hosts: list[int]) -> RankServable:
    servable = make_servable(
        rank_ips=[hosts.address(host) for host in rank_hosts],
        start={"rank_timeout_seconds": 5},
        host=hosts.address(1),
    )
    servable.start_server(prefix=hosts.prefix(1))
    for host in sorted(set(rank_hosts)):
        ranks = [rank for rank, its in enumerate(rank_hosts) if its == host]
        servable.start_launcher(parts(name, ranks), name=f"agents{host}", prefix=hosts.prefix(host))
    return servable.wait_ready()


def wait_for_answer(hosts: Hosts, servable: RankServable) -> None:
    seeds = iter(range(100_000))
    wait_until(lambda: ask(hosts, servable, next(seeds)) == "", BACK_SECONDS, servable.logs)


def test_FourRanksOnTwoHosts_TheServerOnAThird(hosts: Hosts, make_servable: Make, parts: Parts):
    servable = start(hosts, make_servable, parts, "rows4", [2, 2, 3, 3])
    for seed in range(20):
        assert ask(hosts, servable, seed) == ""
    servable.stop()


@pytest.mark.parametrize("cut", [2, 4])
def test_ALinkIsCutAndHealed(hosts: Hosts, make_servable: Make, parts: Parts, cut: int):
    """Of the host with rank 0 and MindSpore's scheduler, and of the other one."""
    servable = start(hosts, make_servable, parts, "rows2", [2, 4])
    assert ask(hosts, servable, 0) == ""
    old = set(servable.agents().values())
    hosts.cut(cut)
    try:
        begun = time.monotonic()
        error = ask(hosts, servable, 1)
        assert time.monotonic() - begun < ANSWERED_SECONDS
        assert "rank" in error, error
        # Both sides of the cut notice it: no process of the old life stays behind.
        wait_until(lambda: not old & set(servable.agents().values()), 60, servable.logs)
        assert "not available" in ask(hosts, servable, 2)
    finally:
        hosts.heal(cut)
    wait_for_answer(hosts, servable)
    servable.stop()
