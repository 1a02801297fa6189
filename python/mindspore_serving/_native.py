"""The one place that imports the native module, and explains why it cannot be imported."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

_PACKAGE = Path(__file__).resolve().parent


def load_native(name: str) -> ModuleType:
    """Import one of the package's native modules.

    Args:
        name: The module's name inside the package, e.g. ``"_core"``.

    Returns:
        The imported module.

    Raises:
        ImportError: The module is missing or does not load. The text names the likely cause and what to run.
    """
    try:
        return importlib.import_module(f"mindspore_serving.{name}")
    except ImportError as error:
        raise ImportError(_explain(name, error)) from error


def _explain(name: str, error: ImportError) -> str:
    folder = _PACKAGE.joinpath(*name.split(".")[:-1])
    stem = name.split(".")[-1]
    built = sorted(path.name for path in folder.glob(f"{stem}.*") if path.suffix in (".so", ".pyd", ".dylib"))
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    tag = f"cpython-{sys.version_info.major}{sys.version_info.minor}"
    head = f"mindspore_serving's native module {name} cannot be imported: {error}\n"
    if not built:
        return head + (
            f"There is no built {stem} in {folder}. Either this is a source tree that has not been built (run "
            "'./dev build', or 'pip install .', in its root), or Python found a source folder named "
            "mindspore_serving before the installed package (start the script from another directory)."
        )
    if not any(tag in file or ".abi3." in file for file in built):
        return head + (
            f"It was built for another Python ({', '.join(built)}) than this one ({python}): run "
            f"'{sys.executable} -m pip install --force-reinstall mindspore_serving'."
        )
    return head + (
        f"{built[0]} exists but a library that it needs is missing or too old: run 'ldd {folder / built[0]}' to see "
        f"which, or '{sys.executable} -m pip install --force-reinstall mindspore_serving' to get a build for this "
        "system."
    )
