// The thread of a worker process that lives whatever the others do: it shows the server that the process runs, and
// ends the process when the server is gone.
#pragma once

#include <thread>

#include "base/error.h"
#include "base/unique_fd.h"
#include "tensor/shared_memory.h"

namespace msserving {

// Kills this process, with its process group if it leads one: with what the user's code has started.
[[noreturn]] void KillProcessGroup();

// Takes no lock, knows nothing of Python and needs no other thread, so it works while user code holds the GIL and while
// a model runs for minutes. Start() once, from any thread.
class Lifeline {
 public:
  // The board's counter rises at least so often.
  static constexpr int kBeatMs = 250;
  // What the process has from the server's end to leave by itself.
  static constexpr int kLeaveMs = 500;

  Lifeline() = default;
  ~Lifeline();
  Lifeline(const Lifeline&) = delete;

  // `control_socket` and the memory of the first channel's rings are kept open or mapped by duplicates of their own.
  // When the socket's other end is gone, or the process that started this one, the process has kLeaveMs; then it is
  // killed, with its process group if it leads one. The starter is watched, too, since children that a server's script
  // has forked keep the other end open after its death.
  Status Start(int control_socket, int control_memory);

 private:
  void Run();

  UniqueFd socket_;
  UniqueFd stop_;
  UniqueFd starter_;  // a pidfd; none where it could not be had
  SharedMemory memory_;
  std::thread thread_;
};

}  // namespace msserving
