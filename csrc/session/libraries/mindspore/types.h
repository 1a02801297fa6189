// What the parts of this library say to each other about tensors. Knows nothing of MindSpore's types.
#pragma once

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "mindspore_serving/session.h"

namespace msserving::mindspore_session {

struct TensorSpec {
  std::string name;
  int32_t dtype = 0;
  std::vector<int64_t> dims;  // -1: dynamic
  bool dynamic_rank = false;

  bool IsStatic() const;
  uint64_t Bytes() const;  // of a static shape
  std::string ToString() const;

  // `name` keeps pointing into this object. Throws std::runtime_error for a rank that the ABI cannot say.
  MsServingTensorInfo ToInfo() const;
};

// Throws std::runtime_error unless the tensor has the dtype, the shape and the bytes that the spec wants.
void CheckFits(const TensorSpec& spec, const MsServingTensor& tensor, size_t index);

// Sets dtype, bytes, rank and dims, not data.
void Describe(const TensorSpec& spec, MsServingTensor* tensor);

// Bytes an element of the wire's number takes; 0: unknown.
uint64_t ElementSize(int32_t dtype);

// This graph cannot be run in this way, for the reason told.
class WrongWay : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// One compiled graph, ready to run. One call at a time, from any thread.
class GraphRunner {
 public:
  virtual ~GraphRunner() = default;

  // Memory for intermediate results that the caller provides before the first run; runners that never run at the
  // same time may share it.
  virtual size_t ScratchBytes() const { return 0; }
  virtual void SetScratch(void*) {}

  // Output tensors are valid until the next run with the same scratch memory. Throws on failure.
  virtual void Run(const MsServingTensor* inputs, MsServingTensor* outputs) = 0;

  // A run has failed in a way after which no other can succeed.
  virtual bool is_spoilt() const { return false; }
};

}  // namespace msserving::mindspore_session
