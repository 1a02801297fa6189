// One rank: its sessions, run as the worker says, on the thread that calls Run().
//
// Runs are taken in the order of their numbers, one after the other, and the next one at once if it has been ordered
// already. Where several may be out at a time (local_board.h), a rank that has failed one takes no other.
//
// The link's thread takes part in nothing but the connection. When that ends, Run() returns; if it cannot, because the
// rank is stuck in a collective whose other ranks are gone, or because the process never came so far, the process is
// ended half a second later (RankAgentOptions::leave). The launcher's end is not seen here: worker/agent_link.h.
#pragma once

#include <atomic>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "distributed/local_board.h"
#include "distributed/rank_link.h"
#include "session/session.h"

namespace msserving {

struct RankAgentOptions {
  static constexpr int kExitCode = 75;
  WorkerAddress worker;
  std::string token;
  uint32_t rank = 0;
  bool local_memory = true;                         // share memory with a worker on the same machine
  int64_t leave_after_ns = kNanosPerSecond / 2;     // from the end of the connection on
  std::function<void(const std::string&)> leave{};  // on the link's thread; empty: _exit(kExitCode)
};

// Set up and run on one thread; RequestStop(): any thread, also in a signal's handler.
class RankAgent final : private RankLinkListener {
 public:
  // Connects. kServableUnavailable: nobody is there.
  static Status Create(RankAgentOptions options, int64_t timeout_ns, std::unique_ptr<RankAgent>* agent);
  ~RankAgent();
  RankAgent(const RankAgent&) = delete;

  // `sessions`: a rank's sub-graphs in their order, `files` what they were loaded from.
  Status Register(std::vector<std::shared_ptr<Session>> sessions, const std::vector<std::string>& files);
  // Until the end, and says why: "stopped" for an orderly one. `interrupted` is asked when a signal came.
  std::string Run(const std::function<bool()>& interrupted);
  void RequestStop();

 private:
  // What lies ready for one session's runs.
  struct Graph {
    std::shared_ptr<Session> session;
    std::vector<MsServingTensor> inputs;
    std::vector<MsServingTensor> outputs;
    std::vector<BoardTensor> placed;
  };

  // Of a place.
  struct Outputs {
    TensorArena arena{"msserving-outputs"};
    uint64_t sent_generation = 0;
  };
  // What goes over the network for a run: it stays until the worker has it all, and that is certain when it orders a
  // run whose number is greater by the runs that may be out.
  struct Answer {
    FrameWriter head;
    std::vector<MsServingTensor> tensors;
    std::vector<uint8_t> bytes;  // the outputs, if the session may run again before that
  };

  explicit RankAgent(RankAgentOptions options);
  // On the link's thread.
  Status OnFrame(FrameKind kind, FrameBody* body) override;
  void OnEnd(const std::string& why) override;
  bool AttachLocally(const std::string& socket_name);
  Status Begin(FrameBody* body);
  void End(const std::string& why);
  void Leave();
  // On Run()'s thread.
  std::string RunUntilEnd(const std::function<bool()>& interrupted);
  bool RunNextLocal();
  void RunLocal(uint64_t seq);
  void RunRemote(FrameBody* body);
  Status TakeLocalInputs(uint32_t place, Graph* graph);
  Status RunGraph(Graph* graph);
  void AnswerLocally(uint64_t seq, uint32_t place, const Status& status, Graph* graph);
  void KeepOutputs(Answer* answer);
  Graph* GraphOf(uint32_t subgraph, Status* status);
  bool WaitForBell(const std::function<bool()>& interrupted);
  void Ring();

  const RankAgentOptions options_;
  std::unique_ptr<RankLink> link_;
  UniqueFd bell_;  // wakes Run(): an order of the worker's, a frame, the end
  std::vector<Graph> graphs_;

  // The machine's own path; written on the link's thread before has_board_, then of Run()'s thread.
  UniqueFd local_socket_;
  LocalBoard board_;
  uint32_t slot_ = 0;
  std::atomic<bool> has_board_{false};
  std::vector<UniqueFd> place_bells_;
  std::optional<TensorWindows> inputs_;
  std::deque<Outputs> outputs_;  // by place
  uint64_t last_seq_ = 0;

  // The other path.
  std::mutex mutex_;  // guards orders_, why_ and ended_
  std::deque<FrameBody> orders_;
  FrameBody order_;
  std::vector<Answer> answers_;  // of run n: [n % runs that may be out]
  bool halted_ = false;          // a run has failed, and others may be out that build on it
  bool ended_ = false;
  std::string why_;
  std::atomic<bool> stop_requested_{false};
  std::atomic<bool> returned_{false};  // from Run(): the process leaves by itself
};

}  // namespace msserving
