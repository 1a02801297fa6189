#include "python/session_conversions.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

namespace py = pybind11;

namespace msserving {
namespace {

std::vector<TensorInfo> InfosFrom(const std::vector<TensorTuple>& tuples) {
  std::vector<TensorInfo> infos;
  for (const auto& [name, dtype, dims] : tuples) {
    TensorInfo info;
    info.name = name;
    if (dtype < 0 || !IsValid(static_cast<uint64_t>(dtype)) || IsText(static_cast<DataType>(dtype))) {
      throw py::value_error("tensor '" + name + "' has the unknown element type " + std::to_string(dtype));
    }
    info.dtype = static_cast<DataType>(dtype);
    info.rank = dims ? static_cast<int>(dims->size()) : -1;
    if (info.rank > kMaxRank) {
      throw py::value_error("tensor '" + name + "' has more than " + std::to_string(kMaxRank) + " dimensions");
    }
    for (int i = 0; i < info.rank; ++i) {
      info.dims[static_cast<size_t>(i)] = std::max<int64_t>((*dims)[static_cast<size_t>(i)], -1);
    }
    infos.push_back(std::move(info));
  }
  return infos;
}

std::vector<TensorTuple> TuplesFrom(const std::vector<TensorInfo>& infos) {
  std::vector<TensorTuple> tuples;
  for (const TensorInfo& info : infos) {
    std::optional<std::vector<int64_t>> dims;
    if (info.rank >= 0) {
      dims.emplace(info.dims.begin(), info.dims.begin() + info.rank);
    }
    tuples.emplace_back(info.name, static_cast<int>(info.dtype), std::move(dims));
  }
  return tuples;
}

}  // namespace

void Check(const Status& status) {
  if (status.ok()) {
    return;
  }
  if (status.kind() == ErrorKind::kCancelled) {
    PyErr_SetString(PyExc_ConnectionError, status.message().c_str());
    throw py::error_already_set();
  }
  throw std::runtime_error(status.message());
}

SessionInfo InfoFrom(const std::vector<TensorTuple>& inputs, const std::vector<TensorTuple>& outputs,
                     const std::vector<int64_t>& batch_sizes, const std::string& way) {
  SessionInfo info;
  info.inputs = InfosFrom(inputs);
  info.outputs = InfosFrom(outputs);
  info.batch_sizes = batch_sizes;
  info.way = way;
  for (size_t i = 0; i < batch_sizes.size(); ++i) {
    if (batch_sizes[i] < 1 || (i > 0 && batch_sizes[i] <= batch_sizes[i - 1])) {
      throw py::value_error("batch sizes must be positive and ascend");
    }
  }
  return info;
}

py::dict DictFrom(const SessionInfo& info) {
  py::dict dict;
  dict["inputs"] = TuplesFrom(info.inputs);
  dict["outputs"] = TuplesFrom(info.outputs);
  dict["batch_sizes"] = info.batch_sizes;
  dict["way"] = info.way;
  return dict;
}

std::shared_ptr<Session> SessionFrom(const std::string& library, const std::map<std::string, std::string>& options) {
  std::unique_ptr<Session> session;
  Status status;
  {
    py::gil_scoped_release no_gil;
    status = OpenLibrarySession(library, SessionOptions(options.begin(), options.end()), &session);
  }
  Check(status);
  return session;
}

}  // namespace msserving
