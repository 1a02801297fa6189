// A launcher's side: it asks the worker for the configuration, says which ranks it will run, and is told when.
#pragma once

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "distributed/rank_link.h"

namespace msserving {

struct LauncherEvent {
  enum class Kind { kLaunch, kStop, kRefused, kLogWanted };
  Kind kind = Kind::kLaunch;
  std::string token;      // of kLaunch: what the agents must show
  std::string scheduler;  // of kLaunch: what the launcher of rank 0 has claimed with
  std::string reason;     // of kStop and kRefused
  uint32_t rank = 0;      // of kLogWanted: to be answered with LogLines()
};

// Any thread. Connect() may be called again after the connection's end.
class RankLauncher final : private RankLinkListener {
 public:
  explicit RankLauncher(WorkerAddress worker) : worker_(std::move(worker)) {}
  ~RankLauncher() { Close(); }
  RankLauncher(const RankLauncher&) = delete;

  // One attempt. kServableUnavailable: nobody is there, or nobody answers within the time.
  Status Connect(int64_t timeout_ns, std::string* configuration);
  // A refusal comes as an event. `scheduler`: host and port of the scheduler of the cluster; of rank 0's launcher.
  void Claim(const std::vector<uint32_t>& ranks, const std::string& host, const std::string& scheduler);
  // False: none within the time. kCancelled: the connection has ended, for the reason told, and all events before its
  // end were read.
  Status NextEvent(int64_t timeout_ns, bool* found, LauncherEvent* event);
  // `text`: how it ended and the last lines of its log.
  void AgentDied(uint32_t rank, const std::string& text);
  void LogLines(uint32_t rank, const std::string& text);
  void Close();

 private:
  Status OnFrame(FrameKind kind, FrameBody* body) override;
  void OnEnd(const std::string& why) override;
  void Send(FrameKind kind, std::string body);
  void Tell(FrameKind kind, uint32_t rank, const std::string& text);

  const WorkerAddress worker_;
  std::mutex link_mutex_;  // guards link_
  std::shared_ptr<RankLink> link_;
  std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  bool configured_ = false;
  std::string configuration_;
  std::deque<LauncherEvent> events_;
  bool ended_ = true;
  std::string why_ = "there is no connection to the worker yet";
};

}  // namespace msserving
