#include "net/listen.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <memory>

namespace msserving {
namespace {

constexpr int kBacklog = 4096;  // the kernel takes less if it is set to

Status IllegalAddress(std::string_view text, std::string_view why) {
  std::string message = "The address format is illegal: '";
  message.append(text).append("': ").append(why);
  return {ErrorKind::kInvalidInput, std::move(message)};
}

Status ListenFailed(const std::string& shown, const std::string& why) {
  return {ErrorKind::kInternal, "create server failed, address " + shown + ": " + why};
}

std::string Show(const Address& address) {
  if (!address.unix_path.empty()) {
    return "unix:" + address.unix_path;
  }
  const bool brackets = address.host.find(':') != std::string::npos;
  return (brackets ? "[" + address.host + "]" : address.host) + ":" + std::to_string(address.port);
}

Status BindFailed(const Address& address, int error) {
  return ListenFailed(Show(address), std::string("cannot bind to the socket address: ") + std::strerror(error));
}

bool SetOption(int fd, int option) {
  const int one = 1;
  return setsockopt(fd, SOL_SOCKET, option, &one, sizeof(one)) == 0;
}

// The first socket binds without SO_REUSEPORT, which fails if anybody else listens there; only then is the port opened
// to the others of this call.
int OpenInternetSocket(const addrinfo& info, bool first, bool shared, UniqueFd* opened) {
  UniqueFd fd(socket(info.ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd || !SetOption(fd.get(), SO_REUSEADDR)) {
    return errno;
  }
  if (info.ai_family == AF_INET6) {
    const int v6_only = 0;
    setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &v6_only, sizeof(v6_only));
  }
  if (!first && !SetOption(fd.get(), SO_REUSEPORT)) {
    return errno;
  }
  if (bind(fd.get(), info.ai_addr, info.ai_addrlen) != 0) {
    return errno;
  }
  if (first && shared && !SetOption(fd.get(), SO_REUSEPORT)) {
    return errno;
  }
  if (listen(fd.get(), kBacklog) != 0) {
    return errno;
  }
  *opened = std::move(fd);
  return 0;
}

Status ListenInternet(const Address& address, int count, std::vector<UniqueFd>* sockets) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const std::string port = std::to_string(address.port);
  if (const int error = getaddrinfo(address.host.c_str(), port.c_str(), &hints, &found); error != 0) {
    return ListenFailed(Show(address), "the host '" + address.host + "' is unknown: " + gai_strerror(error));
  }
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> owner(found, &freeaddrinfo);
  std::vector<UniqueFd> opened;
  sockaddr_storage bound{};
  addrinfo info = *found;
  for (int i = 0; i < count; ++i) {
    UniqueFd fd;
    if (const int error = OpenInternetSocket(info, i == 0, count > 1, &fd); error != 0) {
      return BindFailed(address, error);
    }
    if (i == 0) {  // port 0 lets the kernel choose; the others take the same one
      socklen_t size = sizeof(bound);
      if (getsockname(fd.get(), reinterpret_cast<sockaddr*>(&bound), &size) != 0) {
        return BindFailed(address, errno);
      }
      info.ai_addr = reinterpret_cast<sockaddr*>(&bound);
      info.ai_addrlen = size;
    }
    opened.push_back(std::move(fd));
  }
  *sockets = std::move(opened);
  return Status::Ok();
}

// Removes a socket file on which nobody accepts. Anything else at that path stays, and is an error.
Status RemoveStaleSocket(const Address& address, const sockaddr_un& name) {
  struct stat found;
  if (lstat(name.sun_path, &found) != 0) {
    return errno == ENOENT ? Status::Ok() : BindFailed(address, errno);
  }
  if (!S_ISSOCK(found.st_mode)) {
    return ListenFailed(Show(address), "cannot bind to the socket address: a file that is not a socket is there");
  }
  UniqueFd probe(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!probe) {
    return BindFailed(address, errno);
  }
  if (connect(probe.get(), reinterpret_cast<const sockaddr*>(&name), sizeof(name)) == 0 || errno != ECONNREFUSED) {
    return BindFailed(address, EADDRINUSE);
  }
  if (unlink(name.sun_path) != 0 && errno != ENOENT) {
    return BindFailed(address, errno);
  }
  return Status::Ok();
}

Status ListenUnix(const Address& address, int count, std::vector<UniqueFd>* sockets) {
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  if (address.unix_path.size() >= sizeof(name.sun_path)) {
    return ListenFailed(Show(address), "the unix path has " + std::to_string(address.unix_path.size()) +
                                           " bytes; at most " + std::to_string(sizeof(name.sun_path) - 1) +
                                           " are allowed");
  }
  std::memcpy(name.sun_path, address.unix_path.data(), address.unix_path.size());
  const size_t slash = address.unix_path.rfind('/');
  const std::string directory = slash == std::string::npos ? "." : address.unix_path.substr(0, slash + 1);
  struct stat found;
  if (stat(directory.c_str(), &found) != 0 || !S_ISDIR(found.st_mode)) {
    return ListenFailed(Show(address), "the directory '" + directory + "' does not exist");
  }
  if (Status status = RemoveStaleSocket(address, name); !status.ok()) {
    return status;
  }
  std::vector<UniqueFd> opened;
  opened.emplace_back(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const int fd = opened.front().get();
  if (fd < 0 || bind(fd, reinterpret_cast<sockaddr*>(&name), sizeof(name)) != 0 || listen(fd, kBacklog) != 0) {
    return BindFailed(address, errno);
  }
  while (static_cast<int>(opened.size()) < count) {
    opened.emplace_back(fcntl(fd, F_DUPFD_CLOEXEC, 0));
    if (!opened.back()) {
      return ListenFailed(Show(address), std::string("cannot share the socket: ") + std::strerror(errno));
    }
  }
  *sockets = std::move(opened);
  return Status::Ok();
}

}  // namespace

Status ParseAddress(std::string_view text, bool allow_unix, Address* address) {
  constexpr std::string_view kUnix = "unix:";
  const std::string_view allowed = allow_unix ? "expected 'ip:port' or 'unix:path'" : "expected 'ip:port'";
  if (text.starts_with(kUnix)) {
    if (!allow_unix) {
      return IllegalAddress(text, "a unix socket cannot be used here, expected 'ip:port'");
    }
    const std::string_view path = text.substr(kUnix.size());
    if (path.empty()) {
      return IllegalAddress(text, "the unix path is empty, expected 'unix:path'");
    }
    if (path.find('\0') != std::string_view::npos) {
      return IllegalAddress(text, "the unix path has a null byte in it");
    }
    *address = {"", 0, std::string(path)};
    return Status::Ok();
  }
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) {
    return IllegalAddress(text, std::string("the port part is missing, ").append(allowed));
  }
  std::string_view host = text.substr(0, colon);
  const std::string_view port_text = text.substr(colon + 1);
  if (host.empty()) {
    return IllegalAddress(text, std::string("the ip part is missing, ").append(allowed));
  }
  if (port_text.empty()) {
    return IllegalAddress(text, std::string("the port part is missing, ").append(allowed));
  }
  int64_t port = 0;
  const auto [end, error] = std::from_chars(port_text.data(), port_text.data() + port_text.size(), port);
  if (error == std::errc::invalid_argument || end != port_text.data() + port_text.size()) {
    return IllegalAddress(text, "the port '" + std::string(port_text) + "' is not a number");
  }
  if (error == std::errc::result_out_of_range || port < 1 || port > 65535) {
    return IllegalAddress(text, "the port " + std::string(port_text) + " is out of legal range [1 ~ 65535]");
  }
  if (host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != std::string_view::npos) {
    return IllegalAddress(
        text, "an IPv6 address is written in brackets, '[" + std::string(host) + "]:" + std::string(port_text) + "'");
  }
  if (host.empty() || host.find('\0') != std::string_view::npos) {
    return IllegalAddress(text, std::string("the ip part is missing, ").append(allowed));
  }
  *address = {std::string(host), static_cast<int>(port), ""};
  return Status::Ok();
}

Status Listen(const Address& address, int count, std::vector<UniqueFd>* sockets) {
  return address.unix_path.empty() ? ListenInternet(address, count, sockets) : ListenUnix(address, count, sockets);
}

}  // namespace msserving
