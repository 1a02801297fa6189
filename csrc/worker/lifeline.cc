#include "worker/lifeline.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/thread.h"
#include "tensor/exchange.h"

namespace msserving {

void KillProcessGroup() {
  if (getpgrp() == getpid()) {
    kill(0, SIGKILL);
  }
  kill(getpid(), SIGKILL);
  _exit(1);
}

Lifeline::~Lifeline() {
  if (thread_.joinable()) {
    eventfd_write(stop_.get(), 1);
    thread_.join();
  }
}

Status Lifeline::Start(int control_socket, int control_memory) {
  socket_.Reset(fcntl(control_socket, F_DUPFD_CLOEXEC, 0));
  UniqueFd memory(fcntl(control_memory, F_DUPFD_CLOEXEC, 0));
  stop_.Reset(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!socket_ || !memory || !stop_) {
    return Status(ErrorKind::kInternal, std::string("cannot watch the server: ") + std::strerror(errno));
  }
  if (Status status = SharedMemory::Map(std::move(memory), &memory_); !status.ok()) {
    return status;
  }
  starter_.Reset(static_cast<int>(syscall(SYS_pidfd_open, getppid(), 0)));
  thread_ = StartThread("lifeline", [this] { Run(); });
  return Status::Ok();
}

void Lifeline::Run() {
  auto* board = reinterpret_cast<WorkerBoard*>(memory_.base() + ChannelLayout::kBoard);
  // Only the end of the socket is of interest: its messages are read by the main thread.
  pollfd watched[3] = {{stop_.get(), POLLIN, 0}, {socket_.get(), POLLRDHUP, 0}, {starter_.get(), POLLIN, 0}};
  while (true) {
    board->beats.fetch_add(1, std::memory_order_relaxed);
    if (poll(watched, 3, kBeatMs) <= 0) {
      continue;
    }
    if (watched[0].revents != 0) {
      return;
    }
    if (watched[1].revents != 0 || watched[2].revents != 0) {
      break;
    }
  }
  if (poll(watched, 1, kLeaveMs) > 0) {
    return;
  }
  KillProcessGroup();
}

}  // namespace msserving
