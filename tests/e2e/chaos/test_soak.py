"""Half load for half an hour (`./dev test --long`), or for a moment: nothing grows."""

import pytest

from chaos.ledger import Ledger
from chaos.world import World, make_world
from servers import ServerProcess
from soak import SAMPLES, Process, problems, soak

SHORT_SECONDS, LONG_SECONDS = 20, 1800


def test_MemoryAndDescriptorsStayFlat(tmp_path, models, long_run):
    with ServerProcess(make_world(tmp_path, models), env={"GLOG_v": "1"}) as server:
        processes, ledger = soak(World(server), LONG_SECONDS if long_run else SHORT_SECONDS)
    print(ledger.summary(), *(process.line() for process in processes), sep="\n")
    assert not problems(processes, ledger)
    assert ledger.sent > 100


@pytest.mark.parametrize(
    ("private", "slabs", "rings", "descriptors", "noticed"),
    [(0.5, 0, 0, 0, 1), (0, 1, 0, 0, 1), (0, 0, 0.1, 0, 1), (0, 0, 0, 0.1, 1), (0.1, 0.1, 0.06, 0.01, 0)],
)
def test_GrowthIsNoticed(private, slabs, rings, descriptors, noticed):
    process = Process("leaky", 1, channels=2)
    for number in range(SAMPLES):
        process.seconds.append(float(number))
        process.private_mb.append(100 + private * number)
        process.slabs_mb.append(10 + slabs * number)
        process.rings_mb.append(rings * number)
        process.descriptors.append(20 + descriptors * number)
    assert len(problems([process], Ledger())) == noticed
