"""The old package, mindspore-serving 2.0.2, with MindSpore Lite's runtime."""

import os
import shutil
from pathlib import Path

from rival_work.works import chosen

from mindspore_serving import server


def lay_out(folder):
    version = folder / chosen().name / "1"
    shutil.rmtree(str(folder), ignore_errors=True)
    version.mkdir(parents=True)
    shutil.copy(str(Path(__file__).with_name("servable_config.py")), str(folder / chosen().name))
    for model in Path(os.environ["RIVALS_MINDIR"]).glob("*.mindir"):
        shutil.copy(str(model), str(version))


def main():
    folder = Path.cwd() / "servables"
    lay_out(folder)
    config = server.ServableStartConfig(str(folder), chosen().name, device_ids=0, device_type="CPU")
    server.start_servables([config], enable_lite=True)
    server.start_grpc_server("127.0.0.1:" + os.environ["RIVALS_GRPC_PORT"], max_msg_mb_size=100)
    server.start_restful_server("127.0.0.1:" + os.environ["RIVALS_HTTP_PORT"], max_msg_mb_size=100)


if __name__ == "__main__":
    main()
