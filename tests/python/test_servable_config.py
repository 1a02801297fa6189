"""ServableStartConfig and SSLConfig: every parameter is checked, both positional layouts work."""

import pytest

from mindspore_serving.server import ServableStartConfig, SSLConfig

KEY = bytes(range(16))


def test_defaults_are_those_of_the_reference():
    config = ServableStartConfig("/models", "add", 0)
    assert config.servable_directory == "/models"
    assert config.servable_name == "add"
    assert config.device_ids == (0,)
    assert config.version_number == 0
    assert config.device_type is None
    assert config.num_parallel_workers == 0
    assert config.dec_key is None
    assert config.dec_mode == "AES-GCM"


def test_sixth_position_is_the_key_or_the_number_of_workers():
    older = ServableStartConfig("/models", "add", (0, 1), 2, "Ascend", KEY, "AES-CBC")
    assert (older.num_parallel_workers, older.dec_key, older.dec_mode) == (0, KEY, "AES-CBC")
    newer = ServableStartConfig("/models", "add", (0, 1), 2, "Ascend", 4, KEY, "AES-CBC")
    assert (newer.num_parallel_workers, newer.dec_key, newer.dec_mode) == (4, KEY, "AES-CBC")
    assert ServableStartConfig("/models", "add", 0, 1, None, None, "AES-CBC").dec_mode == "AES-CBC"
    mixed = ServableStartConfig("/models", "add", 0, 1, None, 3, dec_key=KEY)
    assert (mixed.num_parallel_workers, mixed.dec_key) == (3, KEY)
    named = ServableStartConfig("/models", "add", dec_key=KEY, num_parallel_workers=3, dec_mode="AES-CBC")
    assert (named.num_parallel_workers, named.dec_key, named.dec_mode) == (3, KEY, "AES-CBC")


def test_wrong_argument_lists_are_type_errors():
    with pytest.raises(TypeError, match="multiple values for argument 'dec_key'"):
        ServableStartConfig("/models", "add", 0, 1, None, KEY, dec_key=KEY)
    with pytest.raises(TypeError, match="unexpected keyword argument 'device'"):
        ServableStartConfig("/models", "add", device=1)
    with pytest.raises(TypeError, match="at most 7"):
        ServableStartConfig("/models", "add", 0, 1, None, KEY, "AES-GCM", 1)
    with pytest.raises(TypeError, match="at most 8"):
        ServableStartConfig("/models", "add", 0, 1, None, 1, KEY, "AES-GCM", 1)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"servable_directory": 1}, "'servable_directory' should be str"),
        ({"servable_directory": ""}, "'servable_directory' should not be empty str"),
        ({"servable_name": None}, "'servable_name' should be str"),
        ({"servable_name": ""}, "'servable_name' should not be empty str"),
        ({"servable_name": "../add"}, "'servable_name' should be the name of a directory"),
        ({"servable_name": ".."}, "'servable_name' should be the name of a directory"),
        ({"version_number": -1}, "'version_number' should be >= 0"),
        ({"version_number": True}, "'version_number' should be int"),
        ({"version_number": "1"}, "'version_number' should be int"),
        ({"device_ids": -1}, "'device_ids' should be >= 0"),
        ({"device_ids": "0"}, "'device_ids' should be int, or list or tuple"),
        ({"device_ids": True}, "'device_ids' should be int, or list or tuple"),
        ({"device_ids": (0, -1)}, r"'device_ids\[1\]' should be >= 0"),
        ({"device_ids": [0, 1.0]}, r"'device_ids\[1\]' should be int"),
        ({"device_ids": [0, 1, 0]}, "'device_ids' should have no repeated values, but 0"),
        ({"device_type": ""}, "'device_type' should not be empty str"),
        ({"device_type": 1}, "'device_type' should be str"),
        ({"device_type": "TPU"}, "'device_type' should be 'Ascend', 'GPU', 'CPU' or None"),
        ({"num_parallel_workers": -1}, r"'num_parallel_workers' should be in range \[0, 64\]"),
        ({"num_parallel_workers": 65}, r"'num_parallel_workers' should be in range \[0, 64\]"),
        ({"num_parallel_workers": 1.0}, "'num_parallel_workers' should be int"),
        ({"dec_key": "0123456789abcdef"}, "'dec_key' should be bytes"),
        ({"dec_key": b""}, "length of 16, 24 or 32 bytes, but it has 0"),
        ({"dec_key": b"0" * 17}, "length of 16, 24 or 32 bytes, but it has 17"),
        ({"dec_mode": "AES-ECB"}, "'dec_mode' should be one of 'AES-GCM', 'AES-CBC'"),
        ({"dec_mode": None}, "'dec_mode' should be str"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_legal(arguments, text):
    with pytest.raises(RuntimeError, match=text):
        ServableStartConfig(**({"servable_directory": "/models", "servable_name": "add", "device_ids": 0} | arguments))


@pytest.mark.parametrize(
    ("given", "kept"),
    [("ascend", "Ascend"), ("GPU", "GPU"), ("cpu", "CPU"), ("None", None), ("none", None), (None, None)],
)
def test_device_type_ignores_case(given, kept):
    assert ServableStartConfig("/models", "add", 0, device_type=given).device_type == kept


@pytest.mark.parametrize("length", [16, 24, 32])
def test_the_key_is_never_shown(length):
    key = b"secret-secret-secret-secret-secr"[:length]
    config = ServableStartConfig("/models", "add", 0, dec_key=key)
    assert config.dec_key == key
    assert "secret" not in repr(config)
    with pytest.raises(RuntimeError) as refused:
        ServableStartConfig("/models", "add", 0, dec_key=key + b"secret")
    assert "secret" not in str(refused.value)


def test_ssl_config_keeps_what_it_is_given():
    config = SSLConfig("server.crt", "server.key", "ca.crt", True)
    assert (config.certificate, config.private_key, config.custom_ca, config.verify_client) == (
        "server.crt",
        "server.key",
        "ca.crt",
        True,
    )
    assert SSLConfig("server.crt", "server.key").verify_client is False


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"certificate": None}, "'certificate' should be str"),
        ({"certificate": ""}, "'certificate' should not be empty str"),
        ({"private_key": None}, "'private_key' should be str"),
        ({"private_key": ""}, "'private_key' should not be empty str"),
        ({"custom_ca": 1}, "'custom_ca' should be str"),
        ({"custom_ca": ""}, "'custom_ca' should not be empty str"),
        ({"verify_client": 1}, "'verify_client' should be bool"),
        ({"verify_client": True}, "'custom_ca' should be given when 'verify_client' is True"),
    ],
)
def test_ssl_config_refuses_wrong_values(arguments, text):
    with pytest.raises(RuntimeError, match=text):
        SSLConfig(**({"certificate": "server.crt", "private_key": "server.key"} | arguments))
