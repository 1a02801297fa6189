#include "net/dial.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <string>
#include <utility>

#include "base/clock.h"

namespace msserving {
namespace {

// 0 or an errno.
int ConnectWithin(int socket, const sockaddr* name, socklen_t size, int64_t deadline_ns) {
  if (connect(socket, name, size) == 0) {
    return 0;
  }
  if (errno != EINPROGRESS && errno != EINTR) {
    return errno;
  }
  pollfd watched{socket, POLLOUT, 0};
  while (true) {
    const int64_t left_ns = deadline_ns - RealClock().NowNs();
    if (left_ns <= 0) {
      return ETIMEDOUT;
    }
    const auto left_ms = static_cast<int>(std::min<int64_t>(left_ns / kNanosPerMilli + 1, 60'000));
    const int ready = poll(&watched, 1, left_ms);
    if (ready > 0) {
      int error = 0;
      socklen_t error_size = sizeof(error);
      getsockopt(socket, SOL_SOCKET, SO_ERROR, &error, &error_size);
      return error;
    }
    if (ready < 0 && errno != EINTR) {
      return errno;
    }
  }
}

Status Failed(const std::string& where, const std::string& why) {
  return Status(ErrorKind::kServableUnavailable, "cannot connect to " + where + ": " + why);
}

}  // namespace

Status Dial(const Address& address, int64_t timeout_ns, UniqueFd* connected) {
  const int64_t deadline_ns = RealClock().NowNs() + timeout_ns;
  if (!address.unix_path.empty()) {
    sockaddr_un name{};
    name.sun_family = AF_UNIX;
    if (address.unix_path.size() >= sizeof(name.sun_path)) {
      return Failed("unix:" + address.unix_path, "the path is too long");
    }
    std::memcpy(name.sun_path, address.unix_path.data(), address.unix_path.size());
    UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    const int error =
        fd ? ConnectWithin(fd.get(), reinterpret_cast<sockaddr*>(&name), sizeof(name), deadline_ns) : errno;
    if (error != 0) {
      return Failed("unix:" + address.unix_path, std::strerror(error));
    }
    *connected = std::move(fd);
    return Status::Ok();
  }
  const std::string port = std::to_string(address.port);
  const std::string where = address.host + ":" + port;
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV;
  addrinfo* found = nullptr;
  if (const int error = getaddrinfo(address.host.c_str(), port.c_str(), &hints, &found); error != 0) {
    return Failed(where, gai_strerror(error));
  }
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> owner(found, &freeaddrinfo);
  int error = 0;
  for (const addrinfo* one = found; one != nullptr; one = one->ai_next) {
    UniqueFd fd(socket(one->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    error = fd ? ConnectWithin(fd.get(), one->ai_addr, one->ai_addrlen, deadline_ns) : errno;
    if (error == 0) {
      const int on = 1;
      setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
      *connected = std::move(fd);
      return Status::Ok();
    }
  }
  return Failed(where, std::strerror(error));
}

}  // namespace msserving
