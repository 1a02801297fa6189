"""Importing a servable's servable_config.py, and telling what went wrong in it."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import sys
import sysconfig
import traceback
from importlib.machinery import ModuleSpec
from types import ModuleType

logger = logging.getLogger("mindspore_serving.worker")

_PACKAGE = os.path.join(os.path.dirname(os.path.dirname(os.path.realpath(__file__))), "")
_STANDARD = os.path.join(os.path.realpath(sysconfig.get_path("stdlib")), "")
_IMPORT_MACHINERY = os.path.join(os.path.dirname(os.path.realpath(importlib.__file__)), "")


def import_servable_config(servable_directory: str, servable_name: str) -> ModuleType:
    """Import ``<servable_name>.servable_config`` from the servable directory.

    The servable's directory is a package of that name, so relative imports and imports by the servable's name find its
    own files, whatever else is installed. If something else of that name is installed (a servable may be called
    "numbers", or "scipy"), both are there under the name, the servable's files first: other modules may need the
    installed one.

    Args:
        servable_directory: Directory that holds the servable's directory. Appended to sys.path.
        servable_name: The servable.

    Returns:
        The module.
    """
    path = os.path.join(servable_directory, servable_name)
    package = servable_name.replace(".", "_")
    installed = _import_installed(package)
    if servable_directory not in sys.path:
        sys.path.append(servable_directory)
    if installed is None:
        _make_package(package, path)
    else:
        installed.__path__ = [path, *getattr(installed, "__path__", [])]
    return importlib.import_module(f"{package}.servable_config")


def describe_failure(error: BaseException) -> str:
    """What a user needs of an exception: its text, and where in their own code it came from.

    Args:
        error: What was raised while the servable was loaded.

    Returns:
        Some lines, the exception's text first.
    """
    report = traceback.TracebackException(type(error), error, error.__traceback__)
    lines = ["".join(report.format_exception_only()).strip()]
    if isinstance(error, RuntimeError):
        lines = [str(error)]
    frames = [frame for frame in report.stack if not _is_ours(frame.filename)]
    if not all(_is_standard(frame.filename) for frame in frames):
        lines.append("".join(traceback.format_list(frames)).rstrip())
    cause = error.__cause__
    if cause is not None and str(cause) not in lines[0]:
        lines.append(f"Caused by {describe_failure(cause)}")
    return "\n".join(lines)


def _import_installed(name: str) -> ModuleType | None:
    """The module or package of this name that other modules would get; None if there is none that works."""
    known = sys.modules.get(name)
    if known is not None:
        return known
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:  # no origin: just a directory of that name somewhere on the path
        return None
    try:
        return importlib.import_module(name)
    except Exception as error:
        logger.info("The installed module %s is hidden by the servable of that name: %s", name, error)
        return None


def _make_package(name: str, path: str) -> None:
    init = os.path.join(path, "__init__.py")
    if os.path.isfile(init):
        spec = importlib.util.spec_from_file_location(name, init, submodule_search_locations=[path])
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        return
    spec = ModuleSpec(name, None, is_package=True)
    spec.submodule_search_locations = [path]
    sys.modules[name] = importlib.util.module_from_spec(spec)


def _is_ours(filename: str) -> bool:
    return filename.startswith("<frozen ") or os.path.realpath(filename).startswith((_PACKAGE, _IMPORT_MACHINERY))


def _is_standard(filename: str) -> bool:
    """Whether it is Python's own library: where nobody but us has called it, that says nothing to a user."""
    return os.path.realpath(filename).startswith(_STANDARD) and "site-packages" not in filename
