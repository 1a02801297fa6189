#include "worker/server_connection.h"

#include <span>

#include "tensor/control_socket.h"

namespace msserving {
namespace {

constexpr size_t kDescriptorsALoop = 4;

}  // namespace

Status ServerConnection::ReceiveStart(StartOrder* order) {
  ControlMessage message;
  if (Status status = ReceiveControl(socket_.get(), &message); !status.ok()) {
    return status;
  }
  if (message.kind == 'K') {
    const std::span<const uint8_t> key(reinterpret_cast<const uint8_t*>(message.body.data()), message.body.size());
    Status status = Secret::Create(key, &order->key);
    Wipe(message.body.data(), message.body.size());
    if (status.ok()) {
      status = ReceiveControl(socket_.get(), &message);
    }
    if (!status.ok()) {
      return status;
    }
  }
  if (message.kind == 'X') {
    return Status(ErrorKind::kCancelled, "the server told this worker to stop before it had started");
  }
  if (message.kind != 'S') {
    return Status(ErrorKind::kInternal,
                  std::string("the server's first message is '") + message.kind + "', not a start");
  }
  if (message.fds.size() <= kDescriptorsALoop || (message.fds.size() - 1) % kDescriptorsALoop != 0) {
    return Status(ErrorKind::kInternal, "the server's start message has " + std::to_string(message.fds.size()) +
                                            " descriptors, not 1 and 4 for each of its event loops");
  }
  order->configuration = std::move(message.body);
  order->doorbell = std::move(message.fds[0]);
  order->channels.clear();
  for (size_t i = 1; i < message.fds.size(); i += kDescriptorsALoop) {
    std::unique_ptr<Channel> channel;
    Channel::Descriptors descriptors{std::move(message.fds[i]), std::move(message.fds[i + 1]),
                                     std::move(message.fds[i + 2]), std::move(message.fds[i + 3])};
    if (Status status = Channel::Open(std::move(descriptors), &channel); !status.ok()) {
      return status;
    }
    order->channels.push_back(std::move(channel));
  }
  return Status::Ok();
}

Status ServerConnection::SendReady(std::string_view description) {
  return SendControl(socket_.get(), 'R', description);
}

Status ServerConnection::SendFailed(std::string_view text) {
  return SendControl(socket_.get(), 'F', text.substr(0, kMaxControlBody));
}

ControlEvent ServerConnection::ReceiveEvent() {
  ControlMessage message;
  if (!ReceiveControl(socket_.get(), &message).ok()) {
    return ControlEvent::kServerGone;
  }
  return message.kind == 'X' ? ControlEvent::kStop : ControlEvent::kNothing;
}

}  // namespace msserving
