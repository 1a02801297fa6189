#include "tensor/control_socket.h"

#include <sys/socket.h>
#include <sys/uio.h>

#include <cerrno>
#include <cstring>

namespace msserving {
namespace {

struct Header {
  char kind;
  char unused[3];
  uint32_t fds;
  uint64_t body_bytes;
};

Status Failed(const char* what) {
  const bool gone = errno == EPIPE || errno == ECONNRESET;
  return Status(gone ? ErrorKind::kCancelled : ErrorKind::kInternal,
                std::string("control socket: ") + what + ": " + std::strerror(errno));
}

Status SendAll(int socket, const char* data, size_t size) {
  while (size > 0) {
    const ssize_t n = send(socket, data, size, MSG_NOSIGNAL);
    if (n < 0) {
      if (errno == EINTR) {
        continue;
      }
      return Failed("send");
    }
    data += n;
    size -= static_cast<size_t>(n);
  }
  return Status::Ok();
}

Status ReceiveAll(int socket, char* data, size_t size) {
  while (size > 0) {
    const ssize_t n = recv(socket, data, size, 0);
    if (n == 0) {
      return Status(ErrorKind::kCancelled, "control socket: the other side is gone");
    }
    if (n < 0) {
      if (errno == EINTR) {
        continue;
      }
      return Failed("receive");
    }
    data += n;
    size -= static_cast<size_t>(n);
  }
  return Status::Ok();
}

}  // namespace

Status MakeControlPair(UniqueFd* ours, UniqueFd* theirs) {
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) {
    return Failed("socketpair");
  }
  ours->Reset(pair[0]);
  theirs->Reset(pair[1]);
  return Status::Ok();
}

Status SendControl(int socket, char kind, std::string_view body, const std::vector<int>& fds) {
  if (body.size() > kMaxControlBody || fds.size() > kMaxControlFds) {
    return Status(ErrorKind::kInternal, "control socket: message too large");
  }
  Header header{kind, {}, static_cast<uint32_t>(fds.size()), body.size()};
  iovec piece{&header, sizeof(header)};
  msghdr message{};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  std::vector<char> ancillary(CMSG_SPACE(sizeof(int) * fds.size()));
  if (!fds.empty()) {
    message.msg_control = ancillary.data();
    message.msg_controllen = ancillary.size();
    cmsghdr* item = CMSG_FIRSTHDR(&message);
    item->cmsg_level = SOL_SOCKET;
    item->cmsg_type = SCM_RIGHTS;
    item->cmsg_len = CMSG_LEN(sizeof(int) * fds.size());
    std::memcpy(CMSG_DATA(item), fds.data(), sizeof(int) * fds.size());
  }
  ssize_t n;
  do {
    n = sendmsg(socket, &message, MSG_NOSIGNAL);
  } while (n < 0 && errno == EINTR);
  if (n < 0) {
    return Failed("send");
  }
  if (static_cast<size_t>(n) < sizeof(header)) {
    Status status = SendAll(socket, reinterpret_cast<char*>(&header) + n, sizeof(header) - static_cast<size_t>(n));
    if (!status.ok()) {
      return status;
    }
  }
  return SendAll(socket, body.data(), body.size());
}

Status ReceiveControl(int socket, ControlMessage* message) {
  Header header{};
  iovec piece{&header, sizeof(header)};
  std::vector<char> ancillary(CMSG_SPACE(sizeof(int) * kMaxControlFds));
  msghdr parts{};
  parts.msg_iov = &piece;
  parts.msg_iovlen = 1;
  parts.msg_control = ancillary.data();
  parts.msg_controllen = ancillary.size();
  ssize_t n;
  do {
    n = recvmsg(socket, &parts, MSG_CMSG_CLOEXEC);
  } while (n < 0 && errno == EINTR);
  if (n == 0) {
    return Status(ErrorKind::kCancelled, "control socket: the other side is gone");
  }
  if (n < 0) {
    return Failed("receive");
  }
  message->fds.clear();
  for (cmsghdr* item = CMSG_FIRSTHDR(&parts); item != nullptr; item = CMSG_NXTHDR(&parts, item)) {
    if (item->cmsg_level != SOL_SOCKET || item->cmsg_type != SCM_RIGHTS) {
      continue;
    }
    const size_t count = (item->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd;
      std::memcpy(&fd, CMSG_DATA(item) + i * sizeof(int), sizeof(int));
      message->fds.emplace_back(fd);
    }
  }
  if (static_cast<size_t>(n) < sizeof(header)) {
    Status status = ReceiveAll(socket, reinterpret_cast<char*>(&header) + n, sizeof(header) - static_cast<size_t>(n));
    if (!status.ok()) {
      return status;
    }
  }
  if (header.body_bytes > kMaxControlBody || header.fds != message->fds.size()) {
    return Status(ErrorKind::kInternal, "control socket: malformed message");
  }
  message->kind = header.kind;
  message->body.resize(header.body_bytes);
  return ReceiveAll(socket, message->body.data(), message->body.size());
}

}  // namespace msserving
