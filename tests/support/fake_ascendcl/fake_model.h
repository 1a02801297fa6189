// The double's model files (fake_ascendcl.h) and what running one computes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace fake_ascendcl {

struct Tensor {
  std::string name;
  int32_t wire_dtype = 0;
  std::vector<int64_t> dims;  // -1: the batch
  bool own = true;            // false: an input by which the runtime is told something
};

struct Model {
  std::vector<Tensor> inputs;
  std::vector<Tensor> outputs;
  std::string run = "add";
  std::vector<uint64_t> batches;
  bool several_sizes = false;
  std::optional<float> abort_at;
  std::optional<float> hold_at;
  std::string hold_file;
};

// Nothing, and why in *error, for a file that is no model.
std::optional<Model> ReadModel(const std::string& path, std::string* error);

// Bytes of a tensor at this batch size.
size_t Bytes(const Tensor& tensor, uint64_t batch);

// Computes the outputs; the pointers are in the order of the model's inputs and outputs. Does not return if the model
// has an abort_at that is among the inputs.
void Run(const Model& model, uint64_t batch, const std::vector<const void*>& inputs, const std::vector<void*>& outputs);

}  // namespace fake_ascendcl
