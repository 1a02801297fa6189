"""What startup_agents is given: files, and the ranks of this machine."""

import socket

import pytest

from mindspore_serving.server.distributed import _agent_files
from mindspore_serving.server.distributed._agent_files import check_agent_files
from mindspore_serving.server.distributed._configuration import Configuration
from mindspore_serving.server.distributed._local_ranks import ReservedPort, find_local_ranks, is_local
from mindspore_serving.server.distributed._rank_table import RankTable, read_rank_table


def table_of(*servers) -> RankTable:
    ranks = iter(range(10_000))
    return read_rank_table(
        {
            "server_list": [
                {
                    "server_id": ip,
                    "device": [{"device_id": str(i), "rank_id": str(next(ranks))} for i in range(count)],
                }
                for ip, count in servers
            ]
        },
        "test",
    )


TABLE = table_of(("10.9.8.1", 2), ("10.9.8.2", 3))


def ids(local):
    return [rank.rank_id for rank in local.ranks]


# ---- which ranks are of this machine


def test_the_ranks_of_the_address_that_is_of_this_machine():
    local = find_local_ranks(TABLE, None, None, lambda ip: ip == "10.9.8.2")
    assert (local.ip, ids(local)) == ("10.9.8.2", [2, 3, 4])


def test_a_machine_that_the_table_does_not_name():
    with pytest.raises(RuntimeError, match=r"No address of the rank table is of this machine: 10.9.8.1, 10.9.8.2"):
        find_local_ranks(TABLE, None, None, lambda ip: False)


def test_a_machine_that_the_table_names_twice():
    with pytest.raises(RuntimeError, match=r"Several addresses .*: 10.9.8.1, 10.9.8.2. Give agent_ip and rank_start"):
        find_local_ranks(TABLE, None, None, lambda ip: True)


def test_agent_ip_and_rank_start_say_it_without_looking():
    local = find_local_ranks(TABLE, "172.16.0.9", 2, lambda ip: pytest.fail("nothing is to be bound"))
    assert (local.ip, ids(local)) == ("172.16.0.9", [2, 3, 4])
    assert ids(find_local_ranks(TABLE, "172.16.0.9", 3)) == [3, 4]
    with pytest.raises(RuntimeError, match=r"'rank_start' should be less than the rank size 5, but 5 was given"):
        find_local_ranks(TABLE, "172.16.0.9", 5)


def test_this_machine_has_its_loopback_addresses_and_no_others():
    assert is_local("127.0.0.1") and is_local("127.0.0.77")
    assert not is_local("240.0.0.1")  # reserved, of no machine
    assert not is_local("no such name")


def test_the_first_free_port_is_taken():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        reserved = ReservedPort("127.0.0.1", port)
        assert reserved.port > port
        reserved.release()
        with pytest.raises(RuntimeError, match=rf"No port from agent_start_port {port} on is free on 127.0.0.1"):
            ReservedPort("127.0.0.1", port, port)
    with pytest.raises(RuntimeError, match=r"'240.0.0.1' of the ranks is not of this machine"):
        ReservedPort("240.0.0.1", 7000)


def test_a_reserved_port_is_kept_for_the_one_that_shall_listen():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    reserved = ReservedPort("127.0.0.1", port)
    other = ReservedPort("127.0.0.1", port)
    assert other.port > reserved.port  # another launcher, before anybody listens
    with socket.create_server(("127.0.0.1", reserved.port)) as server:  # sets SO_REUSEADDR
        socket.create_connection(server.getsockname()).close()
    reserved.release()
    other.release()


# ---- files


@pytest.fixture
def script(tmp_path, monkeypatch):
    """The directory of a start-up script, with model files beside it; the current directory is another one."""
    home = tmp_path / "home"
    (home / "models").mkdir(parents=True)
    for name in ("a.mindir", "b.mindir", "c.mindir", "group.pb"):
        (home / "models" / name).touch()
    monkeypatch.setattr("sys.argv", [str(home / "agents.py")])
    monkeypatch.chdir(tmp_path)
    return home


def test_relative_files_lie_beside_the_script_and_absolute_ones_where_they_say(script):
    files = check_agent_files(["models/a.mindir", str(script / "models" / "b.mindir")], ("models/group.pb",))
    models = script / "models"
    assert files.models == ((models / "a.mindir",), (models / "b.mindir",))
    assert files.groups == (models / "group.pb",)


def test_a_rank_may_have_several_subgraphs(script):
    a, b = "models/a.mindir", "models/b.mindir"
    files = check_agent_files([[a, b], (b, a)], None)
    assert [[file.name for file in rank] for rank in files.models] == [
        ["a.mindir", "b.mindir"],
        ["b.mindir", "a.mindir"],
    ]
    with pytest.raises(RuntimeError, match=r"'model_files\[1\]' has 1 and 'model_files\[0\]' has 2"):
        check_agent_files([[a, b], [a]], None)


@pytest.mark.parametrize(
    ("models", "groups", "message"),
    [
        ("models/a.mindir", None, "'model_files' should be list or tuple of str"),
        ([], None, "'model_files' should not be empty"),
        ([[]], None, r"'model_files\[0\]' should not be empty"),
        ([3], None, r"'model_files\[0\]' should be str"),
        ([""], None, r"'model_files\[0\]' should not be empty str"),
        ([["models/a.mindir", None]], None, r"'model_files\[0\]\[1\]' should be str"),
        (["models/z.mindir"], None, r"'model_files\[0\]': the file '.*z.mindir' does not exist"),
        (["models"], None, "does not exist"),
        (["models/a.mindir"], "models/group.pb", "'group_config_files' should be list or tuple of str, or None"),
        (["models/a.mindir"], ["models/none.pb"], r"'group_config_files\[0\]': the file '.*none.pb' does not exist"),
        (["models/a.mindir"], ["models/group.pb"] * 2, "at most one element for each rank"),
    ],
)
def test_files_are_checked(script, models, groups, message):
    with pytest.raises(RuntimeError, match=message):
        check_agent_files(models, groups)


def test_a_file_that_may_not_be_read_is_named(script, monkeypatch):
    monkeypatch.setattr(_agent_files.os, "access", lambda path, mode: False)  # root may read everything
    with pytest.raises(RuntimeError, match=r"'model_files\[0\]': the file '.*a.mindir' cannot be read by this user"):
        check_agent_files(["models/a.mindir"], None)


def test_there_is_one_element_for_each_rank_of_this_machine(script):
    files = check_agent_files(["models/a.mindir"] * 2, ["models/group.pb"] * 2)
    files.check_count(2)
    with pytest.raises(RuntimeError, match=r"'model_files' should have one element .* which are 3, but 2 were given"):
        files.check_count(3)
    files = check_agent_files(["models/a.mindir"] * 2, ["models/group.pb"])
    with pytest.raises(RuntimeError, match=r"'group_config_files' should have .* which are 2, but 1 were given"):
        files.check_count(2)
    check_agent_files(["models/a.mindir"] * 2, []).check_count(2)  # no files: none are used


# ---- what the worker tells


CONFIGURATION = Configuration("matmul", 1, 5, 1, True, (1,), False, "CPU", TABLE)


def test_the_configuration_arrives_as_it_was():
    assert Configuration.from_json(CONFIGURATION.to_json()) == CONFIGURATION


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        CONFIGURATION.to_json().replace(b'"rank_size":5', b'"rank_size":"5"'),
        CONFIGURATION.to_json().replace(b'"device_type":"CPU"', b'"device_type":"TPU"'),
        CONFIGURATION.to_json().replace(b'"rank_id":"3"', b'"rank_id":"4"'),
    ],
)
def test_another_configuration_is_not_understood(content):
    with pytest.raises(RuntimeError, match=r"configuration that the distributed worker sent is not understood"):
        Configuration.from_json(content)


def test_a_configuration_that_launchers_would_not_take_is_not_sent():
    table = table_of(("10.9.8.1", 3000))
    with pytest.raises(RuntimeError, match=r"rank table is too large"):
        Configuration("matmul", 1, 3000, 1, True, (), False, None, table).to_json()
