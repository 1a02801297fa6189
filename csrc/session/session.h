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
  // So many runs of the graph may be under way at a time: this session's, and one of each sibling from 1 to
  // runs_at_once() - 1. Siblings of that number of different graphs run one at a time, as sessions of those graphs
  // without siblings do; each keeps outputs of its own until the next run of any of them.
  virtual uint32_t runs_at_once() const { return 1; }
  virtual std::shared_ptr<Session> Sibling(uint32_t) const { return nullptr; }
};

using SessionOptions = std::vector<std::pair<std::string, std::string>>;

// Opens a graph through a session library (a path as dlopen takes it). A library is loaded once a process and never
// unloaded. Errors name the library and, for a failed open, give its reason.
Status OpenLibrarySession(const std::string& library, const SessionOptions& options, std::unique_ptr<Session>* session);

}  // namespace msserving
