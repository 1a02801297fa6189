// A model loaded onto the device, and what it takes and gives.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "mindspore_serving/session.h"
#include "session/libraries/acl/acl_library.h"

namespace msserving::acl {

struct OmTensor {
  std::string name;
  int32_t dtype = 0;  // the wire's number
  size_t item_bytes = 0;
  std::vector<int64_t> dims;  // of the largest batch size
  bool batched = false;       // the leading dimension is one of the model's batch sizes (inputs only)
  size_t index = 0;           // among the model's own inputs or outputs
  size_t capacity = 0;        // bytes of its buffer on the device

  size_t Bytes() const;
  MsServingTensorInfo Info() const;  // refers to `name`
};

// Needs the device's context to be current in the calling thread, from the constructor to the destructor.
class OmModel {
 public:
  // Throws AclFailure, or std::runtime_error for a model that cannot be served.
  OmModel(const AclLibrary& acl, const std::string& file);
  OmModel(const OmModel&) = delete;
  OmModel& operator=(const OmModel&) = delete;

  uint32_t id() const { return id_.get(); }
  Desc* desc() const { return desc_.get(); }
  const std::vector<OmTensor>& inputs() const { return inputs_; }
  const std::vector<OmTensor>& outputs() const { return outputs_; }
  // Ascending; empty: built for one shape.
  const std::vector<int64_t>& batch_sizes() const { return batch_sizes_; }
  // The model's input that says which of its batch sizes a run is of, and the bytes of its buffer.
  struct SizeInput {
    size_t index;
    size_t capacity;
  };
  const std::optional<SizeInput>& size_input() const { return size_input_; }

 private:
  void ReadBatchSizes();
  void ReadInputs();
  void ReadOutputs();
  OmTensor Tensor(const char* what, size_t index, const IoDims& dims, DataType type, const char* name,
                  size_t capacity) const;

  const AclLibrary& acl_;
  Owned<uint32_t> id_;
  Owned<Desc*> desc_;
  std::vector<int64_t> batch_sizes_;
  std::optional<SizeInput> size_input_;
  std::vector<OmTensor> inputs_, outputs_;
};

// A tensor's dimensions as text, for messages: "[2, 3]".
std::string DimsText(const std::vector<int64_t>& dims);

}  // namespace msserving::acl
