#include "python/python_session.h"

namespace py = pybind11;

namespace msserving {
namespace {

const char* NumpyName(DataType type) {
  constexpr const char* kNames[] = {nullptr, "bool",   "int8",    "uint8",   "int16",   "uint16", "int32", "uint32",
                                    "int64", "uint64", "float16", "float32", "float64", nullptr,  nullptr};
  return kNames[static_cast<size_t>(type)];
}

py::array ReadOnlyView(const MsServingTensor& tensor, const py::handle& owner) {
  const py::dtype dtype(NumpyName(static_cast<DataType>(tensor.dtype)));
  const std::vector<py::ssize_t> shape(tensor.dims, tensor.dims + tensor.rank);
  py::array view(dtype, shape, {}, tensor.data, owner);  // an owner makes it a view
  py::detail::array_proxy(view.ptr())->flags &= ~py::detail::npy_api::NPY_ARRAY_WRITEABLE_;
  return view;
}

}  // namespace

DataType DataTypeOf(const py::dtype& dtype) {
  for (int i = 1; i < kDataTypeCount; ++i) {
    const auto type = static_cast<DataType>(i);
    const char* name = NumpyName(type);
    if (name != nullptr && dtype.equal(py::dtype(name))) {
      return type;
    }
  }
  return DataType::kUnknown;
}

PythonSession::PythonSession(SessionInfo info, py::function run) : info_(std::move(info)), run_(std::move(run)) {}

PythonSession::~PythonSession() {
  py::gil_scoped_acquire gil;
  kept_.release().dec_ref();
  run_.release().dec_ref();
}

Status PythonSession::Run(std::span<const MsServingTensor> inputs, std::span<MsServingTensor> outputs) {
  py::gil_scoped_acquire gil;
  try {
    return Call(inputs, outputs);
  } catch (const std::exception& error) {
    return Status(ErrorKind::kStageFailed, error.what());
  }
}

Status PythonSession::Call(std::span<const MsServingTensor> inputs, std::span<MsServingTensor> outputs) {
  py::list arguments;
  for (const MsServingTensor& input : inputs) {
    arguments.append(ReadOnlyView(input, run_));
  }
  const py::list results = run_(arguments);
  if (results.size() != outputs.size()) {
    return Status(ErrorKind::kStageFailed, "the graph gave " + std::to_string(results.size()) + " outputs, not " +
                                               std::to_string(outputs.size()));
  }
  kept_ = py::list();
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (Status status = TakeOutput(i, results[i], &outputs[i]); !status.ok()) {
      return status;
    }
  }
  return Status::Ok();
}

Status PythonSession::TakeOutput(size_t index, py::handle value, MsServingTensor* output) {
  py::array array = py::array::ensure(value, py::array::c_style);
  if (!array) {
    PyErr_Clear();
    return Status(ErrorKind::kStageFailed, "output " + std::to_string(index) + " of the graph is no array");
  }
  const DataType type = DataTypeOf(array.dtype());
  if (type == DataType::kUnknown || array.ndim() > kMaxRank) {
    return Status(ErrorKind::kStageFailed, "output " + std::to_string(index) + " of the graph has the element type " +
                                               std::string(py::str(array.dtype())) + " and " +
                                               std::to_string(array.ndim()) + " dimensions, which no tensor has");
  }
  output->data = const_cast<void*>(array.data());
  output->bytes = static_cast<uint64_t>(array.nbytes());
  output->dtype = static_cast<int32_t>(type);
  output->rank = static_cast<int32_t>(array.ndim());
  for (py::ssize_t i = 0; i < array.ndim(); ++i) {
    output->dims[i] = array.shape(i);
  }
  kept_.append(std::move(array));
  return Status::Ok();
}

}  // namespace msserving
