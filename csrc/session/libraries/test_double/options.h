// The options that the test double's open() takes, parsed and checked.
#pragma once

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "mindspore_serving/session.h"

namespace msserving::test_double {

enum class Op { kAdd, kIdentity, kNegate, kFail };

struct Options {
  // What a run computes. add: one output, the sum of all inputs. identity: every input, handed out without a copy.
  // negate: every input, negated (bool: not). fail: every run fails.
  Op op = Op::kAdd;

  // The signature, e.g. "float32[32,2,2];float32[32,2,2]"; -1 is a dynamic dimension, "float32[]" a scalar.
  std::vector<MsServingTensorInfo> inputs;

  // The sizes of the leading dimension, as a graph compiled for several batch sizes takes, e.g. "1,2,4".
  std::vector<int64_t> batch_sizes;

  // Positions of the inputs whose leading dimension is not the batch, e.g. "1" or "0,2". `add` uses the whole of such
  // an input for every row.
  std::vector<size_t> without_batch_dim_inputs;

  // How long a run takes at least, in microseconds, and whether that time is slept ("sleep", as a device would) or
  // burnt ("spin", as a CPU kernel would).
  int64_t run_us = 0;
  bool spin = false;

  // Eventfds by which a test holds runs where it wants them: a run adds one to `started_fd` when it begins and then
  // waits until it can take one from `gate_fd`, a semaphore. -1: none.
  int started_fd = -1;
  int gate_fd = -1;

  // A run fails, or the process aborts, if the first element of a row of any batched input has this value. The rows
  // are those of the leading dimension; a scalar is its own row.
  std::optional<double> fail_if_first_element;
  std::optional<double> crash_if_first_element;

  bool HasBatchDim(size_t input) const;
};

// Throws std::invalid_argument naming the option and its value.
Options ParseOptions(const MsServingOption* options, size_t count);

}  // namespace msserving::test_double
