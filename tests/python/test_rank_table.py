"""Rank tables: both documented forms, and what is wrong with a file, said with its place."""

import json

import pytest

from mindspore_serving.server.distributed import _rank_table
from mindspore_serving.server.distributed._rank_table import Rank, check_layout, load_rank_table, parse_rank_table


def server_list(*servers):
    """servers: (ip, [device ids])."""
    ranks = iter(range(1000))
    return {
        "version": "1.0",
        "server_list": [
            {
                "server_id": ip,
                "device": [
                    {"device_id": str(device), "device_ip": "192.1.27.6", "rank_id": str(next(ranks))}
                    for device in devices
                ],
            }
            for ip, devices in servers
        ],
        "status": "completed",
    }


def group_list(*groups):
    """groups: lists of (ip, device id)."""
    ranks = iter(range(1000))
    return {
        "group_list": [
            {
                "group_name": "",
                "instance_list": [
                    {"server_id": ip, "rank_id": str(next(ranks)), "devices": [{"device_id": str(device)}]}
                    for ip, device in group
                ],
            }
            for group in groups
        ]
    }


def parse(table):
    return parse_rank_table(json.dumps(table).encode(), "table.json")


def table_of(*servers):
    return parse(server_list(*servers))


def test_the_server_list_form():
    table = table_of(("10.0.0.1", [0, 1]), ("10.0.0.2", [4]))
    assert table.ranks == (Rank(0, "10.0.0.1", 0), Rank(1, "10.0.0.1", 1), Rank(2, "10.0.0.2", 4))
    assert table.ips == ("10.0.0.1", "10.0.0.2")
    assert table.content["status"] == "completed"  # what MindSpore wants besides is kept


def test_the_group_list_form():
    table = parse(group_list([("10.0.0.1", 0), ("10.0.0.1", 1)], [("10.0.0.2", 0)]))
    assert table.ranks == (Rank(0, "10.0.0.1", 0), Rank(1, "10.0.0.1", 1), Rank(2, "10.0.0.2", 0))


def test_the_group_list_goes_before_the_server_list():
    table = parse({**server_list(("10.0.0.1", [0])), **group_list([("10.0.0.9", 3)])})
    assert table.ranks == (Rank(0, "10.0.0.9", 3),)


def changed(change):
    table = server_list(("10.0.0.1", [0, 1]))
    change(table)
    return table


def device(table, number):
    return table["server_list"][0]["device"][number]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.clear(), "it should have 'server_list' or 'group_list'"),
        (lambda t: t.update(server_list=[]), "server_list: it should be a list with at least one element"),
        (lambda t: t.update(server_list={}), "server_list: it should be a list"),
        (lambda t: t.update(server_list=["x"]), r"server_list\[0\]: it should be an object"),
        (lambda t: t["server_list"][0].pop("server_id"), r"server_list\[0\]: server_id .* but is None"),
        (lambda t: t["server_list"][0].update(server_id="10.0.0.1; x"), "server_id should be the server's ip"),
        (lambda t: t["server_list"][0].pop("device"), r"server_list\[0\].device: it should be a list"),
        (lambda t: device(t, 1).update(rank_id=1), r"device\[1\]: rank_id should be a decimal number as a string"),
        (lambda t: device(t, 1).update(rank_id="-1"), "decimal number"),
        (lambda t: device(t, 1).update(rank_id="١"), "decimal number"),
        (lambda t: device(t, 1).update(rank_id="1" * 400), "decimal number"),
        (lambda t: device(t, 0).update(device_id=""), r"device\[0\]: device_id should be a decimal number"),
        (lambda t: device(t, 0).pop("device_id"), "device_id should be .* but is None"),
        (lambda t: device(t, 1).update(rank_id="0"), "rank_id should be '1'.* but is '0'"),
        (lambda t: device(t, 0).update(rank_id="1"), "rank_id should be '0'.* but is '1'"),
        (lambda t: device(t, 1).update(rank_id="2"), "rank_id should be '1'.* but is '2'"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(change, message):
    with pytest.raises(RuntimeError, match=rf"rank table file 'table.json' is no rank table: .*{message}"):
        parse(changed(change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda i: i.update(devices=[]), r"instance_list\[0\].devices: it should be a list"),
        (lambda i: i.update(rank_id=0), r"instance_list\[0\]: rank_id should be a decimal"),
        (lambda i: i.pop("server_id"), r"instance_list\[0\]: server_id"),
        (lambda i: i["devices"][0].pop("device_id"), r"devices\[0\]: device_id"),
    ],
)
def test_what_is_wrong_in_a_group_list_is_said_with_its_place(change, message):
    table = group_list([("10.0.0.1", 0)])
    change(table["group_list"][0]["instance_list"][0])
    with pytest.raises(RuntimeError, match=message):
        parse(table)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"NaN x"])
def test_what_is_not_json_is_refused(content):
    with pytest.raises(RuntimeError, match=r"rank table file 't' is not JSON"):
        parse_rank_table(content, "t")


@pytest.mark.parametrize("content", [b"[]", b"null", b'"text"', b"3"])
def test_json_that_is_no_object_is_refused(content):
    with pytest.raises(RuntimeError, match=r"it should be an object"):
        parse_rank_table(content, "t")


def test_the_size_is_bounded_before_anything_is_parsed(tmp_path):
    file = tmp_path / "large.json"
    file.write_bytes(b" " * (_rank_table.MAX_BYTES + 1))
    with pytest.raises(RuntimeError, match=r"is too large: more than 1048576 bytes"):
        load_rank_table(file)


def test_the_number_of_ranks_is_bounded():
    table = {"server_list": [{"server_id": "10.0.0.1", "device": []}]}
    table["server_list"][0]["device"] = [{"rank_id": str(i), "device_id": str(i)} for i in range(4097)]
    with pytest.raises(RuntimeError, match=r"more than 4096 ranks"):
        parse(table)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(RuntimeError, match=r"rank table file '.*nowhere.json' cannot be read: No such file"):
        load_rank_table(tmp_path / "nowhere.json")
    with pytest.raises(RuntimeError, match=r"cannot be read: Is a directory"):
        load_rank_table(tmp_path)


@pytest.mark.parametrize("ascend", [False, True])
def test_the_count_equals_the_declared_rank_size(ascend):
    check_layout(table_of(("10.0.0.1", [0, 1])), 2, 1, ascend=ascend)
    with pytest.raises(RuntimeError, match=r"has 2 ranks, but the servable is declared with rank_size 4"):
        check_layout(table_of(("10.0.0.1", [0, 1])), 4, 1, ascend=ascend)


@pytest.mark.parametrize("ascend", [False, True])
def test_a_device_belongs_to_one_rank(ascend):
    check_layout(table_of(("10.0.0.1", [1]), ("10.0.0.2", [1])), 2, 1, ascend=ascend)
    with pytest.raises(RuntimeError, match=r"Ranks 0 and 2 .* same device id 3 on 10.0.0.1"):
        check_layout(table_of(("10.0.0.1", [3, 4, 3])), 3, 1, ascend=ascend)


def test_an_ascend_server_has_eight_devices():
    check_layout(table_of(("10.0.0.1", [7, 8])), 2, 1, ascend=False)
    with pytest.raises(RuntimeError, match=r"Rank 1 .* has device id 8, but device ids should be less than 8"):
        check_layout(table_of(("10.0.0.1", [7, 8])), 2, 1, ascend=True)


def test_stages_on_ascend_take_whole_servers():
    full = list(range(8))
    check_layout(table_of(("10.0.0.1", full), ("10.0.0.2", full)), 16, 2, ascend=True)
    check_layout(table_of(("10.0.0.1", full)), 8, 2, ascend=True)
    with pytest.raises(RuntimeError, match=r"With stage_size 2 the rank size should be at least 8, but it is 2"):
        check_layout(table_of(("10.0.0.1", [0, 1])), 2, 2, ascend=True)
    with pytest.raises(RuntimeError, match=r"rank 0 is on 10.0.0.1 and rank 4 on 10.0.0.2"):
        check_layout(table_of(("10.0.0.1", [0, 1, 2, 3]), ("10.0.0.2", [0, 1, 2, 3])), 8, 2, ascend=True)
    with pytest.raises(RuntimeError, match=r"rank 0 has device id 1"):
        check_layout(table_of(("10.0.0.1", [1, 0, 2, 3, 4, 5, 6, 7])), 8, 2, ascend=True)


def test_stages_elsewhere_take_any_machines():
    check_layout(table_of(("10.0.0.1", [0]), ("10.0.0.2", [0])), 2, 2, ascend=False)
