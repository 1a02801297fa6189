// Between sessions and what Python knows of them.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "base/error.h"
#include "session/session.h"

namespace msserving {

// Name, element type, dimensions; none: any shape.
using TensorTuple = std::tuple<std::string, int, std::optional<std::vector<int64_t>>>;

// Raises what Python is to see of a failure: ConnectionError for kCancelled, otherwise RuntimeError.
void Check(const Status& status);

// ValueError names what is wrong.
SessionInfo InfoFrom(const std::vector<TensorTuple>& inputs, const std::vector<TensorTuple>& outputs,
                     const std::vector<int64_t>& batch_sizes, const std::string& way);
pybind11::dict DictFrom(const SessionInfo& info);

// Opens it without the GIL.
std::shared_ptr<Session> SessionFrom(const std::string& library, const std::map<std::string, std::string>& options);

}  // namespace msserving
