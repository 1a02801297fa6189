// One worker process: started with posix_spawn, watched through a pidfd, never waited for by number alone.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/unique_fd.h"

namespace msserving {

struct WorkerCommand {
  std::vector<std::string> arguments;                            // [0] is looked up in PATH
  std::vector<std::pair<std::string, std::string>> environment;  // replaces or adds to the server's own
  int output = -1;                                               // standard output and error; -1: the server's own
};

// How a process ended, for people: "exited with status 3", "was killed by signal 9 (SIGKILL, Killed)".
struct WorkerExit {
  bool by_signal = false;
  int code = 0;  // status or signal number
  std::string Describe() const;
};

// Not thread-safe. The destructor kills a process that still runs and reaps it.
class WorkerProcess {
 public:
  WorkerProcess() = default;
  ~WorkerProcess();
  WorkerProcess(const WorkerProcess&) = delete;
  WorkerProcess& operator=(const WorkerProcess&) = delete;

  // The child gets `control` as the descriptor whose number is appended to its arguments, and none but that and the
  // standard three. It leads a process group of its own, which is killed when it has ended, with default signal
  // dispositions and an empty mask.
  Status Start(const WorkerCommand& command, UniqueFd control);

  pid_t pid() const { return pid_; }
  bool running() const { return pid_ > 0; }
  int pidfd() const { return pidfd_.get(); }  // readable once the process has ended
  void Signal(int signal) const;
  void KillGroup() const;  // the process and all that it has started
  // Reaps the process if it has ended; false if it has not.
  bool TryReap(WorkerExit* exit);
  void KillAndReap();

 private:
  pid_t pid_ = 0;
  UniqueFd pidfd_;
};

// How many processes the kernel has killed for want of memory since it started; 0 if it does not say.
uint64_t OomKills();

// The last lines of a file, at most `bytes` of them; empty if it cannot be read.
std::string TailOfFile(const std::string& path, size_t bytes);

}  // namespace msserving
