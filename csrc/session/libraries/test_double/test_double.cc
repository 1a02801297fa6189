// The smallest complete session library: what a test or a benchmark needs of a model, without one.
// options.h lists what open() takes.

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "mindspore_serving/session.h"
#include "session/libraries/library_table.h"
#include "session/libraries/test_double/elementwise.h"
#include "session/libraries/test_double/options.h"

struct MsServingSession {
  explicit MsServingSession(msserving::test_double::Options parsed);

  void Run(const MsServingTensor* inputs, MsServingTensor* outputs);

  msserving::test_double::Options options;
  MsServingSessionInfo info{};
  std::string last_error;

 private:
  void CheckShapes(const MsServingTensor* inputs) const;
  void CheckFirstElements(const MsServingTensor* inputs) const;
  void PassGate() const;
  void SpendTime() const;
  void* Buffer(size_t output, size_t bytes);

  std::vector<std::string> names_;
  std::vector<MsServingTensorInfo> outputs_;
  std::vector<std::vector<uint64_t>> buffers_;  // one an output, kept from run to run
};

using msserving::test_double::AddInto;
using msserving::test_double::ElementAsDouble;
using msserving::test_double::ElementSize;
using msserving::test_double::Negate;
using msserving::test_double::Op;
using msserving::test_double::Options;

namespace {

size_t ElementCount(const MsServingTensor& tensor) {
  size_t count = 1;
  for (int32_t i = 0; i < tensor.rank; ++i) count *= static_cast<size_t>(tensor.dims[i]);
  return count;
}

int64_t MonotonicMicros() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1'000'000 + now.tv_nsec / 1000;
}

}  // namespace

MsServingSession::MsServingSession(Options parsed) : options(std::move(parsed)) {
  outputs_ = options.inputs;
  if (options.op == Op::kAdd) outputs_.resize(1);
  buffers_.resize(outputs_.size());
  for (size_t i = 0; i < options.inputs.size(); ++i) names_.push_back("x" + std::to_string(i));
  for (size_t i = 0; i < outputs_.size(); ++i) names_.push_back("y" + std::to_string(i));
  for (size_t i = 0; i < options.inputs.size(); ++i) options.inputs[i].name = names_[i].c_str();
  for (size_t i = 0; i < outputs_.size(); ++i) outputs_[i].name = names_[options.inputs.size() + i].c_str();
  info.inputs = options.inputs.data();
  info.inputs_count = options.inputs.size();
  info.outputs = outputs_.data();
  info.outputs_count = outputs_.size();
  info.batch_sizes = options.batch_sizes.data();
  info.batch_sizes_count = options.batch_sizes.size();
  info.way = "test double";
}

// The core has checked the shapes already. A test double checks them again, to catch a core that did not.
void MsServingSession::CheckShapes(const MsServingTensor* inputs) const {
  int64_t batch = -1;
  for (size_t i = 0; i < options.inputs.size(); ++i) {
    const MsServingTensorInfo& expected = options.inputs[i];
    const MsServingTensor& given = inputs[i];
    bool fits = given.dtype == expected.dtype && given.rank == expected.rank &&
                given.bytes == ElementCount(given) * ElementSize(given.dtype) &&
                reinterpret_cast<uintptr_t>(given.data) % MS_SERVING_SESSION_ALIGNMENT == 0;
    const bool bucketed = !options.batch_sizes.empty() && options.HasBatchDim(i);
    for (int32_t d = bucketed ? 1 : 0; fits && d < expected.rank; ++d) {
      fits = expected.dims[d] == -1 ? given.dims[d] >= 0 : expected.dims[d] == given.dims[d];
    }
    if (fits && bucketed) {
      batch = batch == -1 ? given.dims[0] : batch;
      const auto& sizes = options.batch_sizes;
      fits = given.dims[0] == batch && std::find(sizes.begin(), sizes.end(), batch) != sizes.end();
    }
    if (!fits) throw std::runtime_error("input " + std::to_string(i) + " does not fit the session's signature");
  }
}

void MsServingSession::CheckFirstElements(const MsServingTensor* inputs) const {
  if (!options.fail_if_first_element && !options.crash_if_first_element) return;
  for (size_t i = 0; i < options.inputs.size(); ++i) {
    const size_t count = ElementCount(inputs[i]);
    if (!options.HasBatchDim(i) || count == 0) continue;
    const size_t rows = inputs[i].rank == 0 ? 1 : static_cast<size_t>(inputs[i].dims[0]);
    for (size_t row = 0; row < rows; ++row) {
      const double first = ElementAsDouble(inputs[i].dtype, inputs[i].data, row * (count / rows));
      if (options.crash_if_first_element == first) std::abort();
      if (options.fail_if_first_element == first) {
        throw std::runtime_error("row " + std::to_string(row) + " of input " + std::to_string(i) + " is refused");
      }
    }
  }
}

void MsServingSession::PassGate() const {
  uint64_t one = 1;
  if (options.started_fd >= 0 && write(options.started_fd, &one, sizeof(one)) != sizeof(one)) {
    throw std::runtime_error("started_fd is not an eventfd");
  }
  if (options.gate_fd >= 0 && read(options.gate_fd, &one, sizeof(one)) != sizeof(one)) {
    throw std::runtime_error("gate_fd is not an eventfd");
  }
}

void MsServingSession::SpendTime() const {
  if (options.run_us == 0) return;
  if (!options.spin) {
    timespec left{options.run_us / 1'000'000, (options.run_us % 1'000'000) * 1000};
    while (nanosleep(&left, &left) != 0) {
    }
    return;
  }
  const int64_t end = MonotonicMicros() + options.run_us;
  while (MonotonicMicros() < end) {
  }
}

void* MsServingSession::Buffer(size_t output, size_t bytes) {
  buffers_[output].resize((bytes + 7) / 8);
  return buffers_[output].data();
}

void MsServingSession::Run(const MsServingTensor* inputs, MsServingTensor* outputs) {
  CheckShapes(inputs);
  CheckFirstElements(inputs);
  PassGate();
  SpendTime();
  if (options.op == Op::kFail) throw std::runtime_error("the test double was told to fail every run");
  for (size_t i = 0; i < outputs_.size(); ++i) {
    outputs[i] = inputs[i];
    if (options.op == Op::kIdentity) continue;
    const size_t count = ElementCount(inputs[i]);
    outputs[i].data = Buffer(i, inputs[i].bytes);
    if (options.op == Op::kNegate) {
      Negate(inputs[i].dtype, inputs[i].data, outputs[i].data, count);
      continue;
    }
    if (inputs[0].bytes > 0) std::memcpy(outputs[0].data, inputs[0].data, inputs[0].bytes);
    for (size_t k = 1; k < options.inputs.size(); ++k) {
      const size_t addend = ElementCount(inputs[k]);
      if (addend == 0 ? count != 0 : count % addend != 0) {
        throw std::runtime_error("input " + std::to_string(k) + " cannot be added to input 0");
      }
      AddInto(inputs[0].dtype, outputs[0].data, count, inputs[k].data, addend);
    }
  }
}

extern "C" __attribute__((visibility("default"))) const MsServingSessionLibrary* ms_serving_session_library() {
  static constexpr MsServingSessionLibrary kLibrary =
      msserving::MakeLibraryTable<MsServingSession, msserving::test_double::ParseOptions>("test double");
  return &kLibrary;
}
