// Decrypting a model file for Python.
#pragma once

#include <pybind11/pybind11.h>

#include <string>

#include "base/secret.h"

namespace msserving {

// The file's content. Holds the GIL only to make the bytes. ValueError: it is not encrypted so, or not with this key.
pybind11::bytes DecryptToBytes(const std::string& path, const Secret& key, const std::string& mode);

}  // namespace msserving
