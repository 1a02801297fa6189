// A session whose graph is run by a Python callable: MindSpore's own executor, where no native way fits.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <vector>

#include "session/session.h"

namespace msserving {

// Run() takes the GIL; the callable gets a list of read-only arrays that view the inputs during the call, and returns
// a list of arrays, which are kept until the next run. Made with the GIL held; may be destroyed without it.
class PythonSession final : public Session {
 public:
  PythonSession(SessionInfo info, pybind11::function run);
  ~PythonSession() override;
  PythonSession(const PythonSession&) = delete;

  const SessionInfo& describe() const override { return info_; }
  Status Run(std::span<const MsServingTensor> inputs, std::span<MsServingTensor> outputs) override;

 private:
  Status Call(std::span<const MsServingTensor> inputs, std::span<MsServingTensor> outputs);
  Status TakeOutput(size_t index, pybind11::handle value, MsServingTensor* output);

  SessionInfo info_;
  pybind11::function run_;
  pybind11::list kept_;
};

// The element type of an array, kUnknown if tensors have none like it.
DataType DataTypeOf(const pybind11::dtype& dtype);

}  // namespace msserving
