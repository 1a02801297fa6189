#include "fake_model.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>

#include "session/libraries/test_double/elementwise.h"

namespace fake_ascendcl {
namespace {

using msserving::test_double::AddInto;
using msserving::test_double::DTypeFromName;
using msserving::test_double::ElementSize;
using msserving::test_double::Negate;

constexpr int32_t kBfloat16 = 99;  // a type that the wire does not have

template <typename T>
std::vector<T> Numbers(const std::string& text) {
  std::vector<T> numbers;
  std::istringstream parts(text);
  for (std::string part; std::getline(parts, part, ',');) numbers.push_back(static_cast<T>(std::stoll(part)));
  return numbers;
}

bool ReadTensor(std::istringstream* words, std::vector<Tensor>* to) {
  Tensor tensor;
  std::string dtype, dims;
  if (!(*words >> tensor.name >> dtype >> dims)) return false;
  tensor.wire_dtype = dtype == "bfloat16" ? kBfloat16 : DTypeFromName(dtype);
  if (dims != "-") tensor.dims = Numbers<int64_t>(dims);
  to->push_back(tensor);
  return tensor.wire_dtype != 0;
}

void AddExtraInput(const std::string& name, Model* model) {
  model->inputs.push_back({name, DTypeFromName("int32"), {1}, false});
}

bool ReadLine(const std::string& line, Model* model) {
  std::istringstream words(line.substr(0, line.find('#')));
  std::string what, value;
  if (!(words >> what)) return true;
  if (what == "input") return ReadTensor(&words, &model->inputs);
  if (what == "output") return ReadTensor(&words, &model->outputs);
  if (what == "several_sizes") {
    model->several_sizes = true;
    AddExtraInput("ascend_mbatch_shape_data", model);
    return true;
  }
  if (!(words >> value)) return false;
  if (what == "run") {
    model->run = value;
    return value == "add" || value == "negate";
  }
  if (what == "batches") {
    model->batches = Numbers<uint64_t>(value);
    AddExtraInput("ascend_mbatch_shape_data", model);
    return true;
  }
  if (what == "extra_input") {
    AddExtraInput(value, model);
    return true;
  }
  if (what == "abort_at") {
    model->abort_at = std::strtof(value.c_str(), nullptr);
    return true;
  }
  if (what == "hold_at") {
    model->hold_at = std::strtof(value.c_str(), nullptr);
    return static_cast<bool>(words >> model->hold_file);
  }
  return false;
}

size_t Elements(const Tensor& tensor, uint64_t batch) {
  size_t count = 1;
  for (const int64_t dim : tensor.dims) count *= dim == -1 ? batch : static_cast<size_t>(dim);
  return count;
}

bool AnyIs(std::optional<float> wanted, const Model& model, uint64_t batch, const std::vector<const void*>& inputs) {
  for (size_t k = 0; wanted && k < inputs.size(); ++k) {
    if (model.inputs[k].wire_dtype != DTypeFromName("float32")) continue;
    const auto* numbers = static_cast<const float*>(inputs[k]);
    if (std::find(numbers, numbers + Elements(model.inputs[k], batch), *wanted) !=
        numbers + Elements(model.inputs[k], batch)) {
      return true;
    }
  }
  return false;
}

void Hold(const std::string& file) {
  std::ofstream(file + ".held", std::ios::app) << getpid() << std::endl;
  while (access(file.c_str(), F_OK) == 0) usleep(5000);
}

}  // namespace

std::optional<Model> ReadModel(const std::string& path, std::string* error) {
  std::ifstream file(path);
  std::string line;
  if (!std::getline(file, line) || line != "fake-om") {
    *error = "Load model from file[" + path + "] failed:\n  it does not begin with fake-om.";
    return std::nullopt;
  }
  Model model;
  while (std::getline(file, line)) {
    if (!ReadLine(line, &model)) {
      *error = "Parse model failed: '" + line + "'";
      return std::nullopt;
    }
  }
  return model;
}

size_t Bytes(const Tensor& tensor, uint64_t batch) {
  return Elements(tensor, batch) * (tensor.wire_dtype == kBfloat16 ? 2 : ElementSize(tensor.wire_dtype));
}

void Run(const Model& model, uint64_t batch, const std::vector<const void*>& inputs,
         const std::vector<void*>& outputs) {
  if (AnyIs(model.hold_at, model, batch, inputs)) Hold(model.hold_file);
  if (AnyIs(model.abort_at, model, batch, inputs)) std::abort();
  for (size_t i = 0; i < outputs.size(); ++i) {
    const Tensor& output = model.outputs[i];
    const size_t count = Elements(output, batch);
    if (model.run == "negate") {
      Negate(output.wire_dtype, inputs[i], outputs[i], count);
      continue;
    }
    std::memset(outputs[i], 0, Bytes(output, batch));
    for (size_t k = 0; k < inputs.size(); ++k) {
      if (!model.inputs[k].own) continue;
      AddInto(output.wire_dtype, outputs[i], count, inputs[k], Elements(model.inputs[k], batch));
    }
  }
}

}  // namespace fake_ascendcl
