// The border between the stage executor and Python: one call per batch, whoever implements it takes the GIL once.
#pragma once

#include <cstdint>
#include <string_view>

#include "tensor/tensor_view.h"

namespace msserving {

// Inputs of a function up to this size are handed to it as a copy, which it may keep. For stacked arrays this counts
// all rows of a call together.
inline constexpr uint64_t kOwnCopyBytes = 64 << 10;

struct PythonStageCall;

// Takes the results of a Python stage. Valid during the call. For each instance of the call exactly one of: all its
// outputs put, or Fail().
class PythonStageSink {
 public:
  // The user's function is about to be called with instances first to first + count - 1. What it calls in turn
  // (Executor::Call) inherits their deadline and cancellation. Until the first Enter() that is all of them.
  virtual void Enter(uint32_t /*first*/, uint32_t /*count*/) {}
  // Copies the value. False: no memory; the instance has been failed, go on with the next.
  virtual bool Put(uint32_t instance, uint32_t output, const TensorView& value) = 0;
  // The same for instances first to first + count - 1, whose values are the rows of `rows`, back to back. False: some
  // of them have been failed.
  virtual bool PutRows(uint32_t first, uint32_t count, uint32_t output, const TensorView& rows) = 0;
  virtual void Fail(uint32_t instance, std::string_view message) = 0;
  // The call is done. What to run next under the same hold of the GIL: the Python stage that follows in the method,
  // with the instances that got there. Null: nothing; the sink takes no more. Whoever does not ask gets it as a call
  // of its own.
  virtual const PythonStageCall* Next() { return nullptr; }

 protected:
  ~PythonStageSink() = default;
};

struct PythonStageCall {
  uint32_t function;
  uint32_t instances;  // 0: a probe of the way to here; no function is called
  uint32_t inputs;
  uint32_t outputs;
  uint32_t batch_size;  // as in Stage
  bool stacked;         // as in Stage; stacked_rows.h says which instances share a call
  // instances x inputs, instance after instance. The memory of what is not copied for the function, or is to be
  // written back, is writable; other memory is not.
  const TensorView* input;
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
