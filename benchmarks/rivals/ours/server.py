"""Ours: one servable in one worker, its files laid out as users lay them out."""

import os
import shutil
from pathlib import Path

from rival_work.works import chosen

from mindspore_serving import server


def lay_out(folder: Path) -> None:
    work = chosen()
    version = folder / work.name / "1"
    shutil.rmtree(folder, ignore_errors=True)
    version.mkdir(parents=True)
    shutil.copy(Path(__file__).with_name("servable_config.py"), folder / work.name)
    for model in Path(os.environ["RIVALS_MINDIR"]).glob("*.mindir"):
        (version / model.name).symlink_to(model)


def main() -> None:
    folder = Path.cwd() / "servables"
    lay_out(folder)
    server.start_servables([server.ServableStartConfig(str(folder), chosen().name, device_ids=0)])
    server.start_grpc_server(f"127.0.0.1:{os.environ['RIVALS_GRPC_PORT']}")
    server.start_restful_server(f"127.0.0.1:{os.environ['RIVALS_HTTP_PORT']}")


if __name__ == "__main__":
    main()
