#include "worker/agent_link.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <cstring>

#include "base/thread.h"
#include "worker/lifeline.h"

namespace msserving {
namespace {

Status Gone() { return Status(ErrorKind::kCancelled, "the launcher of the agents has gone"); }

}  // namespace

AgentLink::~AgentLink() {
  if (thread_.joinable()) {
    eventfd_write(stop_.get(), 1);
    thread_.join();
  }
}

Status AgentLink::ReadExactly(void* memory, size_t bytes) {
  auto* to = static_cast<uint8_t*>(memory);
  while (bytes > 0) {
    const ssize_t got = recv(socket_.get(), to, bytes, 0);
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got <= 0) {
      return Gone();
    }
    to += got;
    bytes -= static_cast<size_t>(got);
  }
  return Status::Ok();
}

Status AgentLink::ReceiveOrder(std::string* order, std::shared_ptr<Secret>* key) {
  std::array<uint8_t, 5> head;
  if (Status status = ReadExactly(head.data(), head.size()); !status.ok()) {
    return status;
  }
  const size_t order_bytes = head[0] | size_t{head[1]} << 8 | size_t{head[2]} << 16 | size_t{head[3]} << 24;
  const size_t key_bytes = head[4];
  if (order_bytes > kMaxOrder || key_bytes > kMaxKey) {
    return Status(ErrorKind::kInternal, "the launcher of the agents sent an order that cannot be one");
  }
  order->resize(order_bytes);
  if (Status status = ReadExactly(order->data(), order_bytes); !status.ok() || key_bytes == 0) {
    return status;
  }
  std::array<uint8_t, kMaxKey> passing;
  Status status = ReadExactly(passing.data(), key_bytes);
  if (status.ok()) {
    status = Secret::Create({passing.data(), key_bytes}, key);
  }
  Wipe(passing.data(), passing.size());
  return status;
}

Status AgentLink::Follow() {
  stop_.Reset(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!stop_) {
    return Status(ErrorKind::kInternal, std::string("cannot watch the launcher: ") + std::strerror(errno));
  }
  thread_ = StartThread("lifeline", [this] {
    pollfd watched[2] = {{stop_.get(), POLLIN, 0}, {socket_.get(), POLLRDHUP, 0}};
    while (poll(watched, 2, -1) <= 0) {
    }
    if (watched[0].revents == 0) {
      KillProcessGroup();
    }
  });
  return Status::Ok();
}

Status AgentLink::Send(std::string_view text) {
  while (!text.empty()) {
    const ssize_t sent = send(socket_.get(), text.data(), text.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) {
      continue;
    }
    if (sent <= 0) {
      return Gone();
    }
    text.remove_prefix(static_cast<size_t>(sent));
  }
  return Status::Ok();
}

}  // namespace msserving
