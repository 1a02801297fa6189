// A loaded graph as the core sees it: what it takes, what it gives, and how to run it once.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "mindspore_serving/session.h"
#include "tensor/tensor_view.h"

namespace msserving {

struct TensorInfo {
  std::string name;
  DataType dtype = DataType::kUnknown;
  int rank = 0;                          // -1: dynamic
  std::array<int64_t, kMaxRank> dims{};  // -1: dynamic
};

struct SessionInfo {
  std::vector<TensorInfo> inputs;
  std::vector<TensorInfo> outputs;
  // The leading dimensions Run() takes, ascending; empty: those of `inputs`.
  std::vector<int64_t> batch_sizes;
  std::string way;  // how the graph is run, e.g. "kernel replay"
};

// One call at a time, from any thread; different sessions run in parallel. describe() is constant and may be called by
// anyone at any time.
class Session {
 public:
  virtual ~Session() = default;
  virtual const SessionInfo& describe() const = 0;
  // `inputs` fit describe() and start at multiples of MS_SERVING_SESSION_ALIGNMENT. The tensors written to `outputs`
  // belong to the session until its next Run(); one may alias an input.
  virtual Status Run(std::span<const MsServingTensor> inputs, std::span<MsServingTensor> outputs) = 0;
};

using SessionOptions = std::vector<std::pair<std::string, std::string>>;

// Opens a graph through a session library (a path as dlopen takes it). A library is loaded once a process and never
// unloaded. Errors name the library and, for a failed open, give its reason.
Status OpenLibrarySession(const std::string& library, const SessionOptions& options, std::unique_ptr<Session>* session);

}  // namespace msserving
