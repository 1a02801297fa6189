"""What `./dev demo` shows: a real MindSpore model from its export to answers over gRPC and REST, and a clean stop."""

import subprocess
import tempfile
from pathlib import Path

from servers import ServerProcess, copy_example, run_script

BUILD = Path(__file__).resolve().parents[2] / "build"


def say(text: str) -> None:
    print(f"\n=== {text}", flush=True)


def call_with_curl(address: str) -> None:
    body = '{"instances": [{"x1": [[1.5, 2.5], [3.5, 4.5]], "x2": [[1.0, 1.0], [2.0, 2.0]]}]}'
    url = f"http://{address}/model/add:add_common"
    print(f"$ curl -s -X POST -d '{body}' {url}")
    command = ["curl", "-sS", "--max-time", "20", "-X", "POST", "-d", body, url]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"curl failed: {done.stderr}")
    print(done.stdout)
    if "2.5" not in done.stdout or "error_msg" in done.stdout:
        raise SystemExit("that is not the answer")


def main() -> None:
    BUILD.mkdir(exist_ok=True)
    # A folder of its own, so that two demonstrations do not meet.
    with tempfile.TemporaryDirectory(prefix="demo-", dir=BUILD) as folder:
        demonstrate(copy_example("tensor_add", Path(folder)))


def demonstrate(example: Path) -> None:
    say("Exporting a MindSpore model (examples/tensor_add/export_model.py)")
    print(run_script(example / "export_model.py").splitlines()[-1])

    say("Starting the server (serving_server.py): one worker process holds the model")
    with ServerProcess(example / "serving_server.py") as server:
        print(server.log.strip())

        say("gRPC and REST, with the Python client (serving_client.py)")
        print(run_script(example / "serving_client.py", env=server.client_env).strip())

        say("REST, with curl")
        call_with_curl(server.rest_address)

        say("Ctrl+C")
        server.stop()
        left = server.pids()
        if left:
            raise SystemExit(f"processes left behind: {left}")
    way = [
        line
        for path in example.glob("serving_logs/*.log")
        for line in path.read_text().splitlines()
        if ".mindir is run by" in line
    ]
    print("Server and worker have stopped. What the worker's log said of the model:", *way, sep="\n  ")


if __name__ == "__main__":
    main()
