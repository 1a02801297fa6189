// Runs over all ranks, from the moment on at which they are ready.
//
// The device's thread writes the inputs into memory that the local ranks share, rings them, and waits for the last
// rank itself; the server's loop takes part only in what goes over the network. A run is sent to all ranks or to none,
// and in the same order to each, as their collectives demand.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"
#include "distributed/frame_connection.h"
#include "distributed/local_board.h"
#include "distributed/rank_agreement.h"
#include "net/event_loop.h"

namespace msserving {

struct RunnerRank {
  RankDescription description;
  FrameConnection* connection = nullptr;  // of the loop's thread; null when it has ended
  UniqueFd socket;                        // local ranks: where descriptors go
  UniqueFd bell;                          // local ranks: wakes them
};

struct RankRunnerOptions {
  uint32_t stage_size = 1;
  int64_t rank_timeout_ns = 10 * kNanosPerSecond;
  // When one rank has failed, the others have this long to finish. If all ranks of a model of one stage fail, they are
  // in step still, and the failure is that of the run alone; otherwise it ends the group.
  int64_t grace_ns = 2 * kNanosPerSecond;
  // So many failed runs in a row end the group: a rank's graph may be of no use once a run of it has failed.
  uint32_t most_failures = 3;
};

class RankRunner {
 public:
  // `on_trouble`: called on the loop's thread; ends the group, and Fail() follows.
  RankRunner(EventLoop* loop, std::vector<RunnerRank> ranks, const RankRunnerOptions& options,
             std::function<void(const std::string&)> on_trouble);
  ~RankRunner();
  RankRunner(const RankRunner&) = delete;

  // The loop's thread, before all else: makes what the local ranks share, and tells all that it begins.
  Status Begin();
  // The loop's thread. Not ok: the rank broke the rules.
  Status OnDone(uint32_t rank, FrameBody* body);
  // The loop's thread: the rank's connection is no more.
  void OnGone(uint32_t rank) { ranks_[rank].connection = nullptr; }
  // The loop's thread, when no connection uses inputs any more: runs fail with this text from now on.
  void Fail(const std::string& why);

  // Any thread but the loop's, one at a time (others wait). The outputs stay until the next run of any sub-graph.
  Status Run(uint32_t subgraph, std::span<const MsServingTensor> inputs, std::span<MsServingTensor> outputs);

 private:
  // What a rank over the network has answered.
  struct Remote {
    std::atomic<uint64_t> seq{0};  // everything else is written before it, on the loop's thread
    DoneHead done;
    std::vector<MsServingTensor> tensors;
    FrameBody body;
  };
  enum class Wait { kAll, kSome, kLost };

  bool IsLocal(size_t rank) const { return static_cast<bool>(ranks_[rank].bell); }
  Status Order(uint32_t subgraph, std::span<const MsServingTensor> inputs);
  void SendToRemotes();
  Wait WaitForRanks();
  bool HasAnswered(size_t rank, bool* failed) const;
  std::string FailureOf(size_t rank) const;
  std::string Unanswered() const;
  Status Collect(std::span<MsServingTensor> outputs);
  bool ReadShapes(size_t rank, std::vector<MsServingTensor>* shapes) const;
  std::string Name(size_t rank) const;
  bool CompareShapes(std::string* why);
  Status TakeOutputs(std::span<MsServingTensor> outputs);
  Status Lose(const std::string& why);
  Status Lost();
  BoardOrder& order() const { return board_.order(); }

  EventLoop& loop_;
  std::vector<RunnerRank> ranks_;
  const RankRunnerOptions options_;
  const std::function<void(const std::string&)> on_trouble_;
  std::vector<uint32_t> slots_;  // of local ranks
  std::deque<Remote> remotes_;
  bool has_local_ = false;
  bool has_remote_ = false;
  LocalBoard board_;
  UniqueFd bell_;  // rung by local ranks and by the loop

  std::mutex run_mutex_;  // held for a whole run; guards what follows
  TensorArena inputs_{"msserving-inputs"};
  uint64_t sent_generation_ = 0;
  TensorWindow outputs_;
  uint64_t seq_ = 0;
  uint32_t failures_ = 0;  // since a run succeeded
  std::vector<MsServingTensor> shapes_;
  std::vector<MsServingTensor> leader_shapes_;
  // Of the run under way, for the loop's thread.
  uint32_t subgraph_ = 0;
  std::span<const MsServingTensor> run_inputs_;
  FrameWriter head_;

  std::atomic<bool> failed_{false};
  std::mutex why_mutex_;  // guards why_
  std::string why_;
};

}  // namespace msserving
