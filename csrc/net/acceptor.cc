#include "net/acceptor.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/log.h"

namespace msserving {
namespace {

constexpr int kAcceptsPerWake = 64;
constexpr int kAcceptsAtStop = 4096;
constexpr int kKeepAliveIdleSeconds = 120;
constexpr int kKeepAliveIntervalSeconds = 30;
constexpr int kKeepAliveProbes = 4;
constexpr int64_t kPauseNs = 100 * kNanosPerMilli;

RateLimit accept_failures;

}  // namespace

Acceptor::Acceptor(EventLoop* loop, UniqueFd listening_socket, std::function<void(UniqueFd)> on_accept)
    : loop_(*loop), socket_(std::move(listening_socket)), on_accept_(std::move(on_accept)) {
  // A peer that vanished without a word is noticed by the kernel; accepted sockets inherit this. Unix sockets refuse
  // it, and need it not.
  const auto set = [fd = socket_.get()](int level, int option, int value) {
    setsockopt(fd, level, option, &value, sizeof(value));
  };
  set(SOL_SOCKET, SO_KEEPALIVE, 1);
  set(IPPROTO_TCP, TCP_KEEPIDLE, kKeepAliveIdleSeconds);
  set(IPPROTO_TCP, TCP_KEEPINTVL, kKeepAliveIntervalSeconds);
  set(IPPROTO_TCP, TCP_KEEPCNT, kKeepAliveProbes);
  loop_.Add(socket_.get(), EPOLLIN, this);
}

Acceptor::~Acceptor() {
  loop_.CancelTimer(resume_timer_);
  if (socket_) {
    loop_.Remove(socket_.get(), this);
  }
}

void Acceptor::Stop() {
  if (!socket_) {
    return;
  }
  loop_.CancelTimer(resume_timer_);
  resume_timer_ = 0;
  stopping_ = true;
  AcceptUpTo(kAcceptsAtStop);
  loop_.Remove(socket_.get(), this);
  // A child that the user's script has forked may hold it, too: the port would go on listening with nobody to accept.
  // Unix sockets are left alone: all loops share one.
  int domain = AF_UNIX;
  socklen_t size = sizeof(domain);
  if (getsockopt(socket_.get(), SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 && domain != AF_UNIX) {
    shutdown(socket_.get(), SHUT_RDWR);
  }
  socket_.Reset();
}

void Acceptor::OnIo(uint32_t) { AcceptUpTo(kAcceptsPerWake); }

void Acceptor::AcceptUpTo(int count) {
  for (int i = 0; i < count && socket_; ++i) {
    sockaddr_storage peer;
    socklen_t size = sizeof(peer);
    UniqueFd fd(accept4(socket_.get(), reinterpret_cast<sockaddr*>(&peer), &size, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!fd) {
      if (errno == EINTR || errno == ECONNABORTED) {
        continue;
      }
      if (errno != EAGAIN && errno != EWOULDBLOCK) {
        const int error = errno;
        MSSERVING_LOG_LIMITED(accept_failures, loop_.now_ns(), kWarning,
                              "Cannot accept a connection: " << std::strerror(error));
        PauseForAMoment();
      }
      return;
    }
    if (peer.ss_family == AF_INET || peer.ss_family == AF_INET6) {
      const int one = 1;
      setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    }
    on_accept_(std::move(fd));
  }
}

void Acceptor::PauseForAMoment() {
  if (stopping_) {
    return;
  }
  loop_.CancelTimer(resume_timer_);
  loop_.Modify(socket_.get(), 0, this);
  resume_timer_ = loop_.AddTimer(loop_.now_ns() + kPauseNs, [this] {
    resume_timer_ = 0;
    loop_.Modify(socket_.get(), EPOLLIN, this);
  });
}

}  // namespace msserving
