// Runs over all ranks, from the moment on at which they are ready.
//
// The device's thread writes the inputs into memory that the local ranks share, rings them, and waits for the last
// rank itself; the server's loop takes part only in what goes over the network. A run is sent to all ranks or to none,
// and in the same order to each, as their collectives demand.
//
// Pipeline. As many runs as there are places (local_board.h) are out at a time, each of a thread of its own: one, or
// with RankRunnerOptions::pipeline one a stage. Each rank takes them one after the other and goes on to the next
// without waiting for the other ranks, so that the first stage works on the next run while the second is at this one.
// A run ends when all ranks have finished it. As a rank's part of a run waits for nothing but parts of that run and of
// those before it, several runs cannot stand in each other's way where each of them alone comes through. A rank that
// has failed a run takes no other one, so no run that was ordered behind it can end well with what it left behind.
#pragma once

#include <array>
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
  bool pipeline = false;  // a run for each stage is out at a time, kMaxRunsOut at most
};

class RankRunner {
 public:
  static constexpr int kNobody = -1;
  // `on_trouble`: called on the loop's thread with the reason and the rank to blame, kNobody if it is no single one;
  // ends the group, and Fail() follows.
  RankRunner(EventLoop* loop, std::vector<RunnerRank> ranks, const RankRunnerOptions& options,
             std::function<void(const std::string&, int)> on_trouble);
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

  // How many runs may be out at a time.
  uint32_t places() const { return static_cast<uint32_t>(places_.size()); }
  // Any thread but the loop's. In one place one run at a time (others wait), whose outputs stay until the place's next
  // run of any sub-graph.
  Status Run(uint32_t place, uint32_t subgraph, std::span<const MsServingTensor> inputs,
             std::span<MsServingTensor> outputs);

 private:
  // What a rank over the network has answered.
  struct Remote {
    std::atomic<uint64_t> seq{0};  // everything else is written before it, on the loop's thread
    DoneHead done;
    std::vector<MsServingTensor> tensors;
    FrameBody body;
  };
  struct Place {
    uint32_t number = 0;
    std::mutex mutex;  // held for a whole run; guards what follows
    UniqueFd bell;     // rung by local ranks and by the loop
    TensorArena inputs{"msserving-inputs"};
    uint64_t sent_generation = 0;
    uint64_t seq = 0;
    int64_t ordered_ns = 0;
    std::vector<MsServingTensor> shapes;
    std::vector<MsServingTensor> leader_shapes;
    // Of the run that is out, for the loop's thread.
    uint32_t subgraph = 0;
    std::span<const MsServingTensor> run_inputs;
    std::deque<Remote> remotes;  // by rank; empty if all are local
  };
  // What the loop's thread knows of a rank over the network. By a run's number modulo the number of places: where its
  // frame ends.
  struct Sent {
    uint64_t answered = 0;  // the last run that it has answered
    std::array<uint64_t, kMaxRunsOut> frames{};
  };
  enum class Wait { kAll, kSome, kLost };

  bool IsLocal(size_t rank) const { return static_cast<bool>(ranks_[rank].bell); }
  Status Order(Place* place, uint32_t subgraph, std::span<const MsServingTensor> inputs);
  Status SendInputMemory(Place* place);
  void SendToRemotes(Place* place);
  Wait WaitForRanks(const Place& place);
  int64_t DeadlineOf(const Place& place, int64_t now_ns);
  void NoteEnd(const Place& place);
  bool HasAnswered(const Place& place, size_t rank, bool* failed) const;
  std::string FailureOf(const Place& place, size_t rank) const;
  std::string Unanswered(const Place& place) const;
  Status Collect(Place* place, std::span<MsServingTensor> outputs);
  bool ReadShapes(const Place& place, size_t rank, std::vector<MsServingTensor>* shapes) const;
  std::string Name(size_t rank) const;
  bool CompareShapes(Place* place, std::string* why, int* rank);
  Status TakeOutputs(const Place& place, std::span<MsServingTensor> outputs);
  Status Lose(const Place& place, const std::string& why, int rank = kNobody);
  Status Lost();
  static void WaitForBell(const Place& place, const timespec* at_most);

  EventLoop& loop_;
  std::vector<RunnerRank> ranks_;
  const RankRunnerOptions options_;
  const std::function<void(const std::string&, int)> on_trouble_;
  std::vector<uint32_t> slots_;  // of local ranks
  bool has_local_ = false;
  bool has_remote_ = false;
  LocalBoard board_;
  std::deque<Place> places_;
  TensorWindows outputs_;

  std::mutex order_mutex_;  // held while a run is ordered; guards what follows
  uint64_t seq_ = 0;        // of the run ordered last
  uint64_t ended_ = 0;      // the last run that all ranks have finished, and when that was seen; if there are several
  int64_t ended_ns_ = 0;    // places

  std::atomic<uint32_t> failures_{0};  // since a run succeeded; of a model of one stage

  // Of the loop's thread.
  uint64_t newest_sent_ = 0;
  std::array<Place*, kMaxRunsOut> place_of_{};  // of run n: [n % places]
  std::vector<Sent> sent_;                      // by rank
  FrameWriter head_;

  std::atomic<bool> failed_{false};
  std::mutex why_mutex_;  // guards why_
  std::string why_;
};

}  // namespace msserving
