// One (sub-)graph of a model, run on rows of several instances at once.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "session/input_rule.h"
#include "session/session.h"
#include "worker/aligned_buffer.h"

namespace msserving {

class ModelGraph;

struct ModelOptions {
  bool with_batch_dim = false;
  std::vector<uint32_t> without_batch_dim_inputs;  // only with a batch dimension
  // The batch size N; 0: the graph's largest, or kDefaultDynamicBatch if its batch dimension is dynamic.
  uint32_t batch_size = 0;
  int64_t max_wait_us = 0;  // BatchPolicy::max_wait_us
};
inline constexpr uint32_t kDefaultDynamicBatch = 64;

// Takes the outcome of ModelGraph::Run(): each row is named exactly once.
class ModelSink {
 public:
  // These rows ran; the outputs are read with graph.Output() during the call only.
  virtual void OnRan(const ModelGraph& graph, std::span<const uint32_t> rows) = 0;
  virtual void OnFailed(uint32_t row, const Status& reason) = 0;

 protected:
  ~ModelSink() = default;
};

struct ModelCounters {
  uint64_t runs = 0;      // calls of the session
  uint64_t rows = 0;      // instances in them
  uint64_t padded = 0;    // rows added to fill a batch
  uint64_t in_place = 0;  // runs without any copy of an input
  uint64_t splits = 0;    // batches taken apart because they failed
};

// One thread at a time. Allocates nothing once its buffers have grown to the largest batch, except for dynamic shapes
// that grow further and for the text of an error.
class ModelGraph {
 public:
  // The session must take instances as the options say; the error says what does not fit.
  static Status Create(std::shared_ptr<Session> session, const ModelOptions& options,
                       std::unique_ptr<ModelGraph>* graph);

  size_t inputs() const { return inputs_.size(); }
  size_t outputs() const { return outputs_.size(); }
  // Instances that one run takes; 1 without a batch dimension.
  uint32_t max_batch() const { return max_batch_; }
  int64_t max_wait_us() const { return max_wait_us_; }
  const SessionInfo& info() const { return session_->describe(); }
  const ModelCounters& counters() const { return counters_; }

  // values: rows x inputs() pointers, row after row. Rows that do not fit the model fail alone and nothing of them is
  // run. Rows that cannot share a batch (other dynamic shapes, other values of an input without batch dimension) run
  // in several. If a run of several rows fails, each runs once more by itself, so that only the bad one fails.
  void Run(uint32_t rows, const TensorView* const* values, ModelSink* sink);

  // The output of the position-th of the rows that OnRan() was called with.
  TensorView Output(size_t output, size_t position) const;

 private:
  struct Input {
    InputRule rule;
    bool batched = false;
    AlignedBuffer buffer;
  };

  ModelGraph() = default;
  Status Init(const ModelOptions& options);
  Status InitBatch(const ModelOptions& options);
  bool Check(uint32_t row, const TensorView* const* values, ModelSink* sink) const;
  bool Share(const TensorView* const* first, const TensorView* const* other) const;
  void RunGroup(std::span<const uint32_t> rows, const TensorView* const* values, ModelSink* sink);
  Status RunOnce(std::span<const uint32_t> rows, const TensorView* const* values);
  uint32_t BatchFor(size_t rows) const;
  bool Place(size_t input, std::span<const uint32_t> rows, const TensorView* const* values, bool* copied);
  bool BackToBack(size_t input, std::span<const uint32_t> rows, const TensorView* const* values) const;
  bool Gather(size_t input, std::span<const uint32_t> rows, const TensorView* const* values, uint64_t row_bytes);
  Status CheckOutputs() const;

  std::shared_ptr<Session> session_;
  std::vector<Input> inputs_;
  std::vector<MsServingTensor> input_tensors_;
  std::vector<MsServingTensor> outputs_;
  std::vector<uint32_t> buckets_;  // ascending; empty: exactly as many rows as there are
  uint32_t max_batch_ = 1;
  int64_t max_wait_us_ = 0;
  bool batched_ = false;
  bool uniform_ = true;  // any rows that pass the check can share a batch
  uint32_t batch_ = 0;   // leading dimension of the run under way
  std::vector<uint32_t> waiting_;
  std::vector<uint32_t> group_;
  ModelCounters counters_;
};

}  // namespace msserving
