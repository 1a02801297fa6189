#include "worker/server_connection.h"

#include <algorithm>
#include <charconv>
#include <span>

#include "base/log.h"
#include "tensor/control_socket.h"

namespace msserving {
namespace {

constexpr size_t kDescriptorsALoop = 4;
constexpr size_t kDescriptorsOfAWorker = 4;

// The number that a body begins with; 0: none.
uint64_t NameIn(std::string_view body) {
  uint64_t name = 0;
  std::from_chars(body.data(), body.data() + body.size(), name);
  return name;
}

void Forget(std::string_view body, Executor* executor) {
  const size_t second = std::min(body.find(' '), body.size() - 1) + 1;
  executor->Forget(NameIn(body), static_cast<uint8_t>(NameIn(body.substr(second))));
}

Status CheckPeer(const ControlMessage& message) {
  if (NameIn(message.body) != 0 && message.fds.size() == kDescriptorsOfAWorker) {
    return Status::Ok();
  }
  return Status(ErrorKind::kInternal, "the server told of another worker in a form that was not understood");
}

Status OpenDevice(ControlMessage* message, DeviceOrder* order) {
  if (Status status = CheckPeer(*message); !status.ok()) {
    return status;
  }
  if (Status status = SharedMemory::Map(std::move(message->fds[2]), &order->memory); !status.ok()) {
    return status;
  }
  order->description = message->body.substr(std::min(message->body.find('\n'), message->body.size() - 1) + 1);
  return DeviceLink::Open(NameIn(message->body),
                          {std::move(message->fds[0]), std::move(message->fds[1]), std::move(message->fds[3])},
                          &order->link);
}

Status OpenExtra(ControlMessage* message, Executor* executor) {
  if (Status status = CheckPeer(*message); !status.ok()) {
    return status;
  }
  std::unique_ptr<Channel> channel;
  Status status = Channel::Open(
      {std::move(message->fds[0]), std::move(message->fds[1]), std::move(message->fds[2]), std::move(message->fds[3])},
      &channel);
  if (status.ok()) {
    executor->AddExtra(NameIn(message->body), std::move(channel));
  }
  return status;
}

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

Status ServerConnection::ReceiveDevice(DeviceOrder* order) {
  while (true) {
    ControlMessage message;
    if (Status status = ReceiveControl(socket_.get(), &message); !status.ok()) {
      return status;
    }
    if (message.kind == 'X') {
      return Status(ErrorKind::kCancelled, "the server told this worker to stop before it was ready");
    }
    if (message.kind == 'D') {
      return OpenDevice(&message, order);
    }
  }
}

ControlEvent ServerConnection::ReceiveEvent(Executor* executor) {
  ControlMessage message;
  if (!ReceiveControl(socket_.get(), &message).ok()) {
    return ControlEvent::kServerGone;
  }
  Status status;
  switch (message.kind) {
    case 'X': return ControlEvent::kStop;
    case 'E': status = OpenExtra(&message, executor); break;
    case 'D': {
      DeviceOrder order;
      status = OpenDevice(&message, &order);
      if (status.ok()) {
        executor->AddDevice(std::move(order.link));
      }
      break;
    }
    case 'G': Forget(message.body, executor); break;
    default: break;
  }
  if (!status.ok()) {
    MSSERVING_LOG(kError, "No channel to another worker: " << status.message());
  }
  return ControlEvent::kNothing;
}

}  // namespace msserving
