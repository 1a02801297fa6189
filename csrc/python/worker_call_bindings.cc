#include "python/worker_call_bindings.h"

#include <pybind11/numpy.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <exception>
#include <string>
#include <vector>

namespace py = pybind11;

namespace msserving {
namespace {

// Element types in the order of NumPy's type numbers, as far as they are those of a tensor.
constexpr std::array<DataType, 13> kByNumpyNumber = {
    DataType::kBool,   DataType::kInt8,    DataType::kUint8,  DataType::kInt16,  DataType::kUint16,
    DataType::kInt32,  DataType::kUint32,  DataType::kInt64,  DataType::kUint64, DataType::kInt64,
    DataType::kUint64, DataType::kFloat32, DataType::kFloat64};
constexpr int kNumpyHalf = 23;

DataType TypeOf(const py::dtype& dtype) {
  const int number = dtype.num();
  if (number >= 0 && number < static_cast<int>(kByNumpyNumber.size())) {
    return kByNumpyNumber[static_cast<size_t>(number)];
  }
  return number == kNumpyHalf ? DataType::kFloat16 : DataType::kUnknown;
}

int NumpyNumberOf(DataType type) {
  if (type == DataType::kFloat16) {
    return kNumpyHalf;
  }
  for (size_t i = 0; i < kByNumpyNumber.size(); ++i) {
    if (kByNumpyNumber[i] == type) {
      return static_cast<int>(i);
    }
  }
  throw std::runtime_error("an output has an unknown data type");
}

TensorView ViewOfArray(const py::array& array) {
  TensorView view;
  view.dtype = TypeOf(array.dtype());
  if (view.dtype == DataType::kUnknown || array.dtype().byteorder() == '>') {
    throw py::type_error("an input has dtype " + std::string(py::str(array.dtype())) + ", which no tensor has");
  }
  if ((array.flags() & py::array::c_style) == 0) {
    throw py::value_error("an input is not C-contiguous");
  }
  if (array.ndim() > kMaxRank) {
    throw py::value_error("an input has " + std::to_string(array.ndim()) + " dimensions; at most " +
                          std::to_string(kMaxRank) + " are possible");
  }
  view.rank = static_cast<uint8_t>(array.ndim());
  std::copy_n(array.shape(), view.rank, view.dims);
  view.data = static_cast<const uint8_t*>(array.data());
  view.bytes = static_cast<uint64_t>(array.nbytes());
  return view;
}

TensorView ViewOfValue(py::handle value) {
  if (py::isinstance<py::array>(value)) {
    return ViewOfArray(py::reinterpret_borrow<py::array>(value));
  }
  TensorView view;
  view.rank = 0;
  Py_ssize_t size = 0;
  if (PyUnicode_Check(value.ptr())) {
    const char* text = PyUnicode_AsUTF8AndSize(value.ptr(), &size);
    if (text == nullptr) {
      throw py::error_already_set();
    }
    view.data = reinterpret_cast<const uint8_t*>(text);
    view.dtype = DataType::kString;
  } else if (PyBytes_Check(value.ptr())) {
    view.data = reinterpret_cast<const uint8_t*>(PyBytes_AS_STRING(value.ptr()));
    size = PyBytes_GET_SIZE(value.ptr());
    view.dtype = DataType::kBytes;
  } else {
    throw py::type_error("an input should be an array, str or bytes");
  }
  view.bytes = static_cast<uint64_t>(size);
  return view;
}

py::object ValueOf(const TensorView& view) {
  if (view.dtype == DataType::kString) {
    return py::str(reinterpret_cast<const char*>(view.data), view.bytes);
  }
  if (view.dtype == DataType::kBytes) {  // as stages see them
    return py::array(py::dtype::of<uint8_t>(), {static_cast<py::ssize_t>(view.bytes)}, view.data);
  }
  const std::vector<py::ssize_t> shape(view.dims, view.dims + view.rank);
  return py::array(py::dtype(NumpyNumberOf(view.dtype)), shape, view.data);
}

py::object Error(const char* text) {
  return py::reinterpret_borrow<py::object>(PyExc_RuntimeError)(py::reinterpret_steal<py::object>(
      PyUnicode_DecodeUTF8(text, static_cast<Py_ssize_t>(std::strlen(text)), "replace")));
}

py::object OutcomeOf(const CallResults& results, uint32_t instance) {
  if (results.error(instance) != ErrorKind::kOk) {
    return Error(results.message(instance).c_str());
  }
  try {
    py::tuple outputs(results.outputs());
    for (uint32_t i = 0; i < results.outputs(); ++i) {
      outputs[i] = ValueOf(results.output(instance, i));
    }
    return outputs;
  } catch (const std::exception& error) {
    return Error(error.what());
  }
}

}  // namespace

py::list CallFromPython(Executor& executor, uint32_t method, const py::list& instances) {
  std::vector<TensorView> views;
  std::vector<py::tuple> held;  // the caller's list may change while this waits
  for (const py::handle item : instances) {
    const auto& instance = held.emplace_back(item.cast<py::tuple>());
    for (const py::handle value : instance) {
      views.push_back(ViewOfValue(value));
    }
    if (instance.size() != held[0].size()) {
      throw py::value_error("the instances have different numbers of inputs");
    }
  }
  py::list outcomes;
  std::exception_ptr raised;
  Status status;
  {
    py::gil_scoped_release no_gil;
    status = executor.Call(method, static_cast<uint32_t>(held.size()), views, [&](const CallResults& results) {
      py::gil_scoped_acquire gil;
      try {
        for (uint32_t i = 0; i < results.instances(); ++i) {
          outcomes.append(OutcomeOf(results, i));
        }
      } catch (...) {  // no memory
        raised = std::current_exception();
      }
    });
  }
  if (raised) {
    std::rethrow_exception(raised);
  }
  if (!status.ok()) {
    throw std::runtime_error(status.message());
  }
  return outcomes;
}

}  // namespace msserving
