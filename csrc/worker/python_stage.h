// The border between the stage executor and Python: one call per batch, whoever implements it takes the GIL once.
#pragma once

#include <cstdint>
#include <string_view>

#include "tensor/tensor_view.h"

namespace msserving {

// Takes the results of a Python stage. Valid during the call. For each instance of the call exactly one of: all its
// outputs put, or Fail().
class PythonStageSink {
 public:
  // The user's function is about to be called with instances first to first + count - 1. What it calls in turn
  // (Executor::Call) inherits their deadline and cancellation. Until the first Enter() that is all of them.
  virtual void Enter(uint32_t /*first*/, uint32_t /*count*/) {}
  // Copies the value. False: no memory; the instance has been failed, go on with the next.
  virtual bool Put(uint32_t instance, uint32_t output, const TensorView& value) = 0;
  virtual void Fail(uint32_t instance, std::string_view message) = 0;

 protected:
  ~PythonStageSink() = default;
};

struct PythonStageCall {
  uint32_t function;
  uint32_t instances;
  uint32_t inputs;
  uint32_t outputs;
  uint32_t batch_size;      // as in Stage
  const TensorView* input;  // instances x inputs, instance after instance; the memory is writable
  // inputs entries. Nonzero: a later stage of the instance reads this input too, so in-place changes must end up in
  // `input`'s memory.
  const uint8_t* write_back;
  PythonStageSink* sink;
};

// Called without the GIL by the thread that holds the Python lane, and by threads of users' functions that wait in
// Executor::Call() for a method with Python stages: so again on a thread that is in a call already, and possibly by
// several threads at a time.
// Must not throw.
using PythonStageFunction = void (*)(void* context, const PythonStageCall* call);

}  // namespace msserving
