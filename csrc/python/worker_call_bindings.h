// _core.Worker.call_method: Executor::Call() with NumPy values.
#pragma once

#include <pybind11/pybind11.h>

#include "worker/executor.h"

namespace msserving {

// `instances`: tuples of C-contiguous arrays, str or bytes; views of their memory are what is called with. Gives a list
// with a tuple of outputs (arrays of their own, or str), or a RuntimeError, for each. Raises if nothing was run. With
// the GIL, which is free while it waits.
pybind11::list CallFromPython(Executor& executor, uint32_t method, const pybind11::list& instances);

}  // namespace msserving
