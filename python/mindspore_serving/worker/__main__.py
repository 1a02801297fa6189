"""``python -m mindspore_serving.worker <descriptor>``: started by the server, never by hand."""

import os
import sys

# "-m" puts the current directory first on the path, where any file could hide a module; "-P" prevents it.
if not getattr(sys.flags, "safe_path", False) and sys.path and sys.path[0] == os.getcwd():
    del sys.path[0]

from mindspore_serving.worker.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv))
