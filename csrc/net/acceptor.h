// Takes connections from a listening socket and hands them over.
#pragma once

#include <functional>

#include "base/unique_fd.h"
#include "net/event_loop.h"

namespace msserving {

// On the loop's thread. When the process runs out of descriptors it waits a moment instead of spinning.
class Acceptor final : private IoHandler {
 public:
  // `on_accept` gets sockets that are non-blocking, close-on-exec and, for TCP, without Nagle's delay.
  Acceptor(EventLoop* loop, UniqueFd listening_socket, std::function<void(UniqueFd)> on_accept);
  Acceptor(const Acceptor&) = delete;
  ~Acceptor();

  // Takes what already waits in the backlog, then closes the listening socket.
  void Stop();

 private:
  void OnIo(uint32_t events) override;
  void AcceptUpTo(int count);
  void PauseForAMoment();

  EventLoop& loop_;
  UniqueFd socket_;
  std::function<void(UniqueFd)> on_accept_;
  TimerId resume_timer_ = 0;
  bool stopping_ = false;
};

}  // namespace msserving
