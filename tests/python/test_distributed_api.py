"""distributed.declare_servable, start_servable and startup_agents: every parameter, and what is refused with which
words. Whole runs are in tests/e2e/test_distributed.py."""

import inspect
import json
import re
from pathlib import Path

import pytest

from mindspore_serving import client
from mindspore_serving.server import SSLConfig, _server, distributed
from mindspore_serving.server.distributed import _start, _startup
from mindspore_serving.server.register import _registry
from mindspore_serving.worker import distributed as earlier
from mindspore_serving.worker import rank_models
from mindspore_serving.worker.main import StartOrder

TABLE = {
    "server_list": [
        {"server_id": "10.0.0.1", "device": [{"device_id": str(i), "rank_id": str(i)} for i in range(2)]},
    ]
}


def defaults(function):
    return {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.default is not parameter.empty
    }


def test_names_order_and_defaults_are_the_documented_ones():
    assert list(inspect.signature(distributed.declare_servable).parameters) == [
        "rank_size",
        "stage_size",
        "with_batch_dim",
        "without_batch_dim_inputs",
        "enable_pipeline_infer",
    ]
    assert list(inspect.signature(distributed.start_servable).parameters)[:6] == [
        "servable_directory",
        "servable_name",
        "rank_table_json_file",
        "version_number",
        "distributed_address",
        "wait_agents_time_in_seconds",
    ]
    assert list(inspect.signature(distributed.startup_agents).parameters)[:8] == [
        "distributed_address",
        "model_files",
        "group_config_files",
        "agent_start_port",
        "agent_ip",
        "rank_start",
        "dec_key",
        "dec_mode",
    ]
    assert defaults(distributed.declare_servable) == {
        "with_batch_dim": True,
        "without_batch_dim_inputs": None,
        "enable_pipeline_infer": False,
    }
    assert defaults(distributed.start_servable) == {
        "version_number": 1,
        "distributed_address": "0.0.0.0:6200",
        "wait_agents_time_in_seconds": 0,
        "device_type": None,
        "ssl_config": None,
        "rank_timeout_seconds": 10.0,
    }
    assert defaults(distributed.startup_agents) == {
        "group_config_files": None,
        "agent_start_port": 7000,
        "agent_ip": None,
        "rank_start": None,
        "dec_key": None,
        "dec_mode": "AES-GCM",
        "ssl_config": None,
    }


# ---- declare_servable


@pytest.fixture
def config(config):
    """Imports a servable_config.py with the given text as a worker does, and returns what it registered."""
    return lambda text: config("from mindspore_serving.server import distributed, register\n" + text)


def test_a_declaration_is_kept(config):
    (model,) = config("distributed.declare_servable(8, 2, True, (1,), True)").models
    assert model.ranks == _registry.RankGroup(8, 2, True)
    assert (model.with_batch_dim, model.without_batch_dim_inputs) == (True, (1,))
    (model,) = config("distributed.declare_servable(rank_size=8, stage_size=1, with_batch_dim=False)").models
    assert model.ranks == _registry.RankGroup(8, 1, False)
    assert not model.with_batch_dim


def test_methods_use_it_as_any_model(config):
    registration = config(
        """
model = distributed.declare_servable(rank_size=8, stage_size=1, with_batch_dim=False)

@register.register_method(output_names=["y"])
def fun(x):
    y = register.call_servable(x)
    return y

@register.register_method(output_names=["y"])
def other(x):
    y = register.call_servable(x, subgraph=3)
    return y

@register.register_method(output_names=["y"])
def staged(x):
    y = register.add_stage(model, x, outputs_count=1)
    return y

servable = register.PipelineServable(servable_name="service", method="fun")

@register.register_pipeline(output_names=["y"])
def predict(x):
    y = servable.run(x)
    return y
"""
    )
    assert list(registration.methods) == ["fun", "other", "staged"]
    assert registration.methods["other"].stages[0].subgraph == 3  # how many there are is known when ranks have loaded
    assert list(registration.pipelines) == ["predict"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("'8', 1", "'rank_size' should be int"),
        ("True, 1", "'rank_size' should be int"),
        ("0, 1", r"'rank_size' should be in range \[1, 4096\], but 0"),
        ("8, 0", r"'stage_size' should be in range \[1, 4096\], but 0"),
        ("8, 1.0", "'stage_size' should be int"),
        ("8, 3", "'rank_size' should be a multiple of 'stage_size', but rank_size is 8 and stage_size 3"),
        ("2, 4", "'rank_size' should be a multiple of 'stage_size'"),
        ("8, 1, 1", "'with_batch_dim' should be bool"),
        ("8, 1, True, -1", "'without_batch_dim_inputs' should be >= 0"),
        ("8, 1, True, (1, 1)", "'without_batch_dim_inputs' should have no repeated values"),
        ("8, 1, True, None, 1", "'enable_pipeline_infer' should be bool"),
    ],
)
def test_parameters_of_declare_servable_are_checked(config, arguments, message):
    with pytest.raises(RuntimeError, match=message):
        config(f"distributed.declare_servable({arguments})")


@pytest.mark.parametrize(
    "text",
    [
        "distributed.declare_servable(2, 1)\ndistributed.declare_servable(2, 1)",
        "distributed.declare_servable(2, 1)\nregister.declare_model('a.mindir', 'MindIR')",
        "register.declare_servable('a.mindir', 'MindIR')\ndistributed.declare_servable(2, 1)",
    ],
)
def test_a_distributed_servable_has_one_model(config, text):
    with pytest.raises(RuntimeError, match="a distributed servable has one model"):
        config(text)


def test_it_is_called_in_a_servable_config():
    with pytest.raises(RuntimeError, match=r"distributed.declare_servable should be called while a servable_config.py"):
        distributed.declare_servable(2, 1)


# ---- start_servable


@pytest.fixture
def servable(tmp_path, monkeypatch):
    """A servable, and a rank table beside the start-up script; the current directory is another one."""
    home = tmp_path / "home"
    (home / "matmul" / "7").mkdir(parents=True)  # version directories have no meaning here
    (home / "matmul" / "servable_config.py").touch()
    (home / "table.json").write_text(json.dumps(TABLE))
    (home / "bad.json").write_text("{}")
    monkeypatch.setattr("sys.argv", [str(home / "serve.py")])
    monkeypatch.chdir(tmp_path)
    return home


def planned(servable, *args, **kwargs):
    """What the worker is told."""
    given = {**defaults(distributed.start_servable), **kwargs}
    names = ["servable_directory", "servable_name", "rank_table_json_file"]
    given.update(zip(names, args or (str(servable), "matmul", "table.json"), strict=True))
    settings = _start.check_settings(**given)
    plan = _start.plan(settings, servable, Path("/logs"))
    (worker,) = plan.workers
    return plan, worker, StartOrder.from_json(worker.config_json)


def test_one_worker_is_told_of_the_ranks(servable):
    plan, worker, order = planned(servable, distributed_address="127.0.0.1:6300", wait_agents_time_in_seconds=9)
    assert (plan.name, plan.version, plan.version_directory) == ("matmul", 1, None)
    assert worker.log_file == "/logs/log_matmul_distributed.log"
    assert (order.servable_name, order.version, order.version_directory) == ("matmul", 1, None)
    ranks = rank_models.RankOrder(**order.distributed)
    assert (ranks.address, ranks.wait_agents_time_in_seconds, ranks.rank_timeout_seconds) == ("127.0.0.1:6300", 9, 10.0)
    assert ranks.rank_table == TABLE


@pytest.mark.parametrize(("given", "version"), [(0, 1), (1, 1), (3, 3)])
def test_version_0_is_version_1_and_no_directory_is_needed(servable, given, version):
    plan, worker, order = planned(servable, version_number=given)
    assert plan.version == order.version == version
    assert worker.log_file.endswith("_distributed.log" if version == 1 else "_distributed_version3.log")


def test_the_rank_table_is_absolute_or_beside_the_script(servable, tmp_path):
    planned(servable, str(servable), "matmul", str(servable / "table.json"))
    (tmp_path / "elsewhere.json").write_text(json.dumps(TABLE))
    with pytest.raises(RuntimeError, match=r"rank table file '.*/home/elsewhere.json' cannot be read"):
        planned(servable, str(servable), "matmul", "elsewhere.json")


@pytest.mark.parametrize(("given", "expected"), [(None, None), ("cpu", "CPU"), ("ASCEND", "Ascend"), ("None", None)])
def test_device_types(servable, given, expected):
    assert planned(servable, device_type=given)[2].device_type == expected


def test_tls_files_are_found_from_every_directory(servable, tmp_path):
    tls = SSLConfig("server.crt", "server.key", "ca.crt", True)
    ranks = rank_models.RankOrder(**planned(servable, ssl_config=tls)[2].distributed)
    assert (ranks.certificate, ranks.private_key) == (str(tmp_path / "server.crt"), str(tmp_path / "server.key"))
    assert (ranks.custom_ca, ranks.verify_client) == (str(tmp_path / "ca.crt"), True)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"servable_directory": 1}, "'servable_directory' should be str"),
        ({"servable_directory": ""}, "'servable_directory' should not be empty str"),
        ({"servable_name": ""}, "'servable_name' should not be empty str"),
        ({"servable_name": "a/b"}, "'servable_name' should be the name of a directory"),
        ({"servable_name": "other"}, "Check servable config failed, directory '.*other' does not exist"),
        ({"rank_table_json_file": None}, "'rank_table_json_file' should be str"),
        ({"rank_table_json_file": ""}, "'rank_table_json_file' should not be empty str"),
        (
            {"rank_table_json_file": "serve.py"},
            "'rank_table_json_file': the rank table file .* cannot be read",
        ),
        ({"rank_table_json_file": "bad.json"}, "'rank_table_json_file': the rank table file .* is no rank table: the"),
        ({"version_number": -1}, "'version_number' should be >= 0"),
        ({"version_number": True}, "'version_number' should be int"),
        ({"distributed_address": 6200}, "'distributed_address' should be str"),
        ({"distributed_address": "127.0.0.1"}, "'distributed_address': the address '127.0.0.1' .* separated by ':'"),
        (
            {"distributed_address": "127.0.0.1:0"},
            r"'distributed_address': .* port 0 is out of .* \[1 ~ 65535\]",
        ),
        ({"distributed_address": ":6200"}, "'distributed_address': the address ':6200' is illegal: the ip is missing"),
        ({"distributed_address": "127.0.0.1:http"}, "'distributed_address': .* the port 'http' is not a number"),
        ({"wait_agents_time_in_seconds": -1}, "'wait_agents_time_in_seconds' should be in range"),
        ({"wait_agents_time_in_seconds": 1.5}, "'wait_agents_time_in_seconds' should be int"),
        ({"device_type": "GPU"}, "'device_type' should be 'Ascend', 'CPU' or None, but 'GPU'"),
        ({"device_type": "TPU"}, "'device_type' should be"),
        ({"ssl_config": client.SSLConfig()}, "'ssl_config' should be server.SSLConfig or None"),
        ({"rank_timeout_seconds": 0}, "'rank_timeout_seconds' should be in range"),
        ({"rank_timeout_seconds": "1"}, "'rank_timeout_seconds' should be a number of seconds"),
        ({"rank_timeout_seconds": float("nan")}, "'rank_timeout_seconds' should be in range .*, but nan was given"),
    ],
)
def test_parameters_of_start_servable_are_checked_and_a_failure_stops_everything(servable, wrong, message):
    given = {
        "servable_directory": str(servable),
        "servable_name": "matmul",
        "rank_table_json_file": "table.json",
        **wrong,
    }
    with pytest.raises(RuntimeError, match=message):
        distributed.start_servable(**given)
    assert not _server.servables_run()


# ---- startup_agents


@pytest.fixture
def agents(tmp_path, monkeypatch):
    """What startup_agents is given at least."""
    (tmp_path / "a.mindir").touch()
    monkeypatch.setattr("sys.argv", [str(tmp_path / "agents.py")])
    monkeypatch.chdir(tmp_path)
    return {**defaults(distributed.startup_agents), "distributed_address": "10.0.0.1:6200", "model_files": ["a.mindir"]}


def test_parameters_of_startup_agents_reach_the_launcher(agents, tmp_path):
    key = bytes(24)
    given = {
        **agents,
        "agent_start_port": 65528,
        "agent_ip": "10.0.0.9",
        "rank_start": 3,
        "dec_key": key,
        "dec_mode": "AES-CBC",
        "ssl_config": client.SSLConfig("agent.crt", "agent.key", "/ca.crt"),
    }
    settings = _startup.check_settings(**given)
    assert (settings.address, settings.agent_start_port) == ("10.0.0.1:6200", 65528)
    assert (settings.agent_ip, settings.rank_start) == ("10.0.0.9", 3)
    assert settings.dec_key is key and settings.dec_mode == "AES-CBC"
    assert settings.tls == (str(tmp_path / "agent.crt"), str(tmp_path / "agent.key"), "/ca.crt", True)
    assert _startup.check_settings(**agents).tls == (None, None, None, False)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"distributed_address": None}, "'distributed_address' should be str"),
        ({"distributed_address": ""}, "'distributed_address' should not be empty str"),
        (
            {"distributed_address": "10.0.0.1:65536"},
            r"'distributed_address': .*65536 is out of .* \[1 ~ 65535\]",
        ),
        ({"model_files": None}, "'model_files' should be list or tuple"),
        ({"model_files": ["b.mindir"]}, "b.mindir' does not exist"),
        ({"group_config_files": "g"}, "'group_config_files' should be list or tuple"),
        ({"agent_start_port": 0}, r"'agent_start_port' should be in range \[1, 65528\], but 0"),
        ({"agent_start_port": 65529}, r"'agent_start_port' should be in range \[1, 65528\]"),
        ({"agent_start_port": "7000"}, "'agent_start_port' should be int"),
        ({"agent_ip": "10.0.0.1"}, "'agent_ip' and parameter 'rank_start' must have values at the same time"),
        ({"rank_start": 0}, "'agent_ip' and parameter 'rank_start' must have values at the same time"),
        ({"agent_ip": "", "rank_start": 0}, "'agent_ip' should not be empty str"),
        ({"agent_ip": 1, "rank_start": 0}, "'agent_ip' should be str"),
        ({"agent_ip": "10.0.0.256", "rank_start": 0}, "'agent_ip' should be an ip address, .*, but '10.0.0.256' was"),
        ({"agent_ip": "host-a", "rank_start": 0}, "'agent_ip' should be an ip address, .*, but 'host-a' was given"),
        ({"agent_ip": "10.0.0.1", "rank_start": "0"}, "'rank_start' should be int"),
        ({"agent_ip": "10.0.0.1", "rank_start": -1}, "'rank_start' should be >= 0"),
        ({"dec_key": b"short"}, "'dec_key' should have a length of 16, 24 or 32"),
        ({"dec_key": "text"}, "'dec_key' should be bytes"),
        ({"dec_key": bytes(16), "dec_mode": "AES"}, "'dec_mode' should be one of 'AES-GCM', 'AES-CBC'"),
        ({"ssl_config": SSLConfig("a", "b")}, "'ssl_config' should be mindspore_serving.client.SSLConfig or None"),
    ],
)
def test_parameters_of_startup_agents_are_checked(agents, wrong, message):
    with pytest.raises(RuntimeError, match=message):
        distributed.startup_agents(**{**agents, **wrong})


def test_importing_the_server_brings_no_grpcio_along():
    import subprocess
    import sys

    program = "import sys, mindspore_serving.server; sys.exit('grpc' in sys.modules or 'mindspore' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_examples_of_the_docstrings_name_real_parameters():
    for function in (distributed.declare_servable, distributed.start_servable, distributed.startup_agents):
        names = set(inspect.signature(function).parameters)
        example = inspect.getdoc(function).partition("Examples:")[2]
        call = re.search(rf"distributed\.{function.__name__}\((.*?)\)\n", example + "\n", re.S).group(1)
        assert set(re.findall(r"(\w+)=", call)) <= names


# ---- names of release 1.2


def test_worker_distributed_hands_on_and_warns(monkeypatch, config):
    calls = []
    for name in ("start_servable", "startup_agents"):
        monkeypatch.setattr(distributed, name, lambda *args, name=name: calls.append((name, args)))
    with pytest.warns(DeprecationWarning, match=r"server.distributed.start_servable replaces it"):
        earlier.start_distributed_servable_in_master("/d", "matmul", "table.json", 2, "10.0.0.1", 6201, 5)
    with pytest.warns(DeprecationWarning, match=r"server.distributed.startup_agents replaces it"):
        earlier.startup_worker_agents("10.0.0.1", 6201, ["a"], ["g"], 7001, "10.0.0.2", 4)
    assert calls == [
        ("start_servable", ("/d", "matmul", "table.json", 2, "10.0.0.1:6201", 5)),
        ("startup_agents", ("10.0.0.1:6201", ["a"], ["g"], 7001, "10.0.0.2", 4)),
    ]
    with pytest.warns(DeprecationWarning, match=r"server.distributed.declare_servable replaces it"):
        registration = config(
            "from mindspore_serving.worker.distributed import declare_distributed_servable\n"
            "declare_distributed_servable(8, 2, True, (1,))"
        )
    assert registration.models[0].ranks == _registry.RankGroup(8, 2, False)
    assert registration.models[0].without_batch_dim_inputs == (1,)


def test_addresses_under_the_old_names_are_checked():
    with pytest.warns(DeprecationWarning), pytest.raises(RuntimeError, match="'worker_ip' should be str"):
        earlier.startup_worker_agents(1, 6200, ["a"])
    with pytest.warns(DeprecationWarning), pytest.raises(RuntimeError, match="'worker_port' should be in range"):
        earlier.start_distributed_servable_in_master("/d", "matmul", "table.json", worker_port=0)


@pytest.mark.parametrize(
    ("function", "parameters"),
    [
        (
            earlier.declare_distributed_servable,
            "rank_size, stage_size, with_batch_dim=True, without_batch_dim_inputs=None",
        ),
        (
            earlier.start_distributed_servable_in_master,
            "servable_directory, servable_name, rank_table_json_file, version_number=1, worker_ip='0.0.0.0', "
            "worker_port=6200, wait_agents_time_in_seconds=0",
        ),
        (
            earlier.startup_worker_agents,
            "worker_ip, worker_port, model_files, group_config_files=None, agent_start_port=7000, agent_ip=None, "
            "rank_start=None",
        ),
    ],
)
def test_names_of_release_1_2_have_its_parameters(function, parameters):
    signature = inspect.signature(function)
    bare = signature.replace(
        parameters=[one.replace(annotation=inspect.Parameter.empty) for one in signature.parameters.values()],
        return_annotation=inspect.Signature.empty,
    )
    assert str(bare) == f"({parameters})"
    assert function.__name__ in earlier.__all__ and len(earlier.__all__) == 3
