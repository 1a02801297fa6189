#include "net/connection.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/log.h"
#include "net/tls_files.h"
#include "net/tls_stream.h"

namespace msserving {
namespace {

constexpr int kMaxPieces = 64;                      // of one sendmsg
constexpr size_t kSendPerWake = 4 << 20;            // then the other connections have their turn
constexpr int kTlsReadsPerWake = 16;                // scratch buffers' worth of plaintext
constexpr size_t kTlsPlainAtOnce = 256 << 10;       // encrypted ahead of the socket
constexpr int64_t kLingerNs = 1 * kNanosPerSecond;  // for the peer to read our last bytes

RateLimit handshake_failures;

}  // namespace

Connection::Connection(EventLoop* loop, UniqueFd socket, const std::shared_ptr<TlsContext>& tls)
    : loop_(*loop), socket_(std::move(socket)), output_(&loop->buffers()) {
  if (tls != nullptr) {
    tls_ = std::make_unique<TlsStream>(*tls, socket_.get(), &loop->buffers());
    speaks_first_ = tls->is_client();
  }
}

Connection::~Connection() {
  loop_.CancelTimer(linger_timer_);
  loop_.CancelTimer(read_again_timer_);
  loop_.CancelTimer(gather_timer_);
  loop_.UnscheduleFlush(this);
  if (socket_ && started_) {
    loop_.Remove(socket_.get(), this);
  }
}

bool Connection::established() const { return tls_ == nullptr || tls_->established(); }

bool Connection::has_unsent() const {
  // blocked_: all that was produced has just fitted into the socket, and there is more to produce.
  return blocked_ || !output_.empty() || (tls_ != nullptr && tls_->wire().size() > tls_->wire_sent);
}

void Connection::Start() {
  started_ = true;
  interest_ = EPOLLIN;
  loop_.Add(socket_.get(), interest_, this);
  if (tls_ != nullptr && speaks_first_) {
    ReadTls();
  }
}

void Connection::Close() {
  if (closed()) {
    return;
  }
  if (started_) {
    loop_.Remove(socket_.get(), this);
  }
  socket_.Reset();
  output_.Clear();
  loop_.ScheduleFlush(this);
}

void Connection::PauseReading() {
  paused_ = true;
  UpdateInterest();
}

void Connection::ResumeReading() {
  if (!paused_) {
    return;
  }
  paused_ = false;
  UpdateInterest();
  if (tls_ != nullptr && !closed() && read_again_timer_ == 0) {
    // What OpenSSL has read ahead makes no noise on the socket.
    read_again_timer_ = loop_.AddTimer(loop_.now_ns(), [this] {
      read_again_timer_ = 0;
      if (!closed() && !paused_ && !ended_ && !finishing_) {
        ReadTls();
      }
    });
  }
}

void Connection::GatherInput() {
  if (closed() || finishing_ || ended_ || gather_timer_ != 0) {
    return;
  }
  const int64_t until_ns = (loop_.now_ns() / kGatherNs + 1) * kGatherNs;
  gather_timer_ = loop_.AddTimer(until_ns, [this] {
    gather_timer_ = 0;
    GatherEnds();
  });
  UpdateInterest();
}

void Connection::GatherEnds() {
  if (!closed() && !paused_ && !ended_ && !finishing_) {
    Read();
  }
  UpdateInterest();
}

void Connection::CloseWhenSent() {
  if (finishing_ || closed()) {
    return;
  }
  finishing_ = true;
  ScheduleOutput();
}

void Connection::UpdateInterest() {
  if (closed() || !started_) {
    return;
  }
  const bool reads = !ended_ && ((!paused_ && gather_timer_ == 0) || finishing_);
  const uint32_t interest = (reads ? EPOLLIN : 0u) | (blocked_ ? EPOLLOUT : 0u);
  if (interest != interest_) {
    interest_ = interest;
    loop_.Modify(socket_.get(), interest, this);
  }
}

void Connection::OnIo(uint32_t events) {
  if (events & EPOLLOUT) {
    blocked_ = false;
    ScheduleOutput();
  }
  if (finishing_) {
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
      Discard();
    }
  } else if (paused_ || ended_) {
    // Nothing is read, but a connection that is gone must not spin.
    if (events & (EPOLLHUP | EPOLLERR)) {
      Close();
    }
  } else if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
    if (gather_timer_ != 0) {  // its end is told whether one asks for it or not
      loop_.CancelTimer(gather_timer_);
      gather_timer_ = 0;
      UpdateInterest();
    }
    Read();
  }
}

void Connection::Read() {
  if (tls_ != nullptr) {
    ReadTls();
  } else {
    ReadPlain();
  }
}

void Connection::ReadPlain() {
  const std::span<uint8_t> scratch = loop_.scratch();
  ssize_t got;
  do {
    got = recv(socket_.get(), scratch.data(), scratch.size(), 0);
  } while (got < 0 && errno == EINTR);
  if (got > 0) {
    OnBytes(scratch.first(static_cast<size_t>(got)));
  } else if (got == 0) {
    ReachedEnd();
  } else if (errno != EAGAIN && errno != EWOULDBLOCK) {
    Close();
  }
}

void Connection::ReadTls() {
  const std::span<uint8_t> scratch = loop_.scratch();
  ScheduleOutput();  // reading may have produced handshake records, or made writing possible
  for (int i = 0; i < kTlsReadsPerWake; ++i) {
    // Records are 16 KiB at most; fill the scratch buffer with as many as there are.
    size_t filled = 0;
    TlsStream::Result result = TlsStream::Result::kOk;
    while (filled < scratch.size()) {
      size_t got = 0;
      result = tls_->Read(scratch.subspan(filled), &got);
      if (result != TlsStream::Result::kOk) {
        break;
      }
      filled += got;
    }
    if (filled > 0) {
      OnBytes(scratch.first(filled));
    }
    if (closed() || paused_ || finishing_ || result == TlsStream::Result::kWait) {
      return;
    }
    if (result == TlsStream::Result::kEnd) {
      ReachedEnd();
      return;
    }
    if (result == TlsStream::Result::kFailed) {
      if (!tls_->established()) {
        handshake_failure_ = TlsReason();
        MSSERVING_LOG_LIMITED(handshake_failures, loop_.now_ns(), kInfo,
                              "A TLS handshake failed: " << handshake_failure_);
      }
      // The alert that says why is worth sending; the peer's view of it is all that can be told.
      ended_ = true;
      output_.Clear();
      CloseWhenSent();
      UpdateInterest();
      return;
    }
  }
  if (read_again_timer_ == 0) {
    read_again_timer_ = loop_.AddTimer(loop_.now_ns(), [this] {
      read_again_timer_ = 0;
      if (!closed() && !paused_ && !ended_ && !finishing_) {
        ReadTls();
      }
    });
  }
}

void Connection::ReachedEnd() {
  ended_ = true;
  UpdateInterest();
  OnEnd();
}

void Connection::Discard() {
  const std::span<uint8_t> scratch = loop_.scratch();
  const ssize_t got = recv(socket_.get(), scratch.data(), scratch.size(), 0);
  if (got > 0 || (got < 0 && (errno == EAGAIN || errno == EINTR))) {
    return;
  }
  ended_ = true;
  if (got < 0 || lingering_) {
    Close();
  } else {
    UpdateInterest();  // half-closed; what is pending may still be wanted
  }
}

void Connection::Flush() {
  if (closed()) {
    if (!close_told_) {
      close_told_ = true;
      OnClosed();  // may delete this
    }
    return;
  }
  if (blocked_) {
    return;
  }
  if (!has_unsent()) {
    last_progress_ns_ = loop_.now_ns();
  }
  for (size_t sent_before = 0;;) {
    if (!finishing_) {
      Produce();
      if (closed()) {
        return;  // Flush() is scheduled again by Close()
      }
    }
    const bool more = output_full() && !finishing_;
    sent_before += output_.size();
    const SendResult result = Send();
    if (result == SendResult::kFailed) {
      Close();
      return;
    }
    if (result == SendResult::kBlocked || (more && sent_before >= kSendPerWake)) {
      blocked_ = true;  // also when it is only the others' turn: a writable socket tells so at the next wake-up
      UpdateInterest();
      return;
    }
    if (!more) {
      break;
    }
  }
  UpdateInterest();
  if (finishing_ && !lingering_) {
    BeginLinger();
  }
}

Connection::SendResult Connection::Send() {
  const SendResult result = tls_ != nullptr ? SendTls() : SendPlain();
  return result;
}

Connection::SendResult Connection::SendPlain() {
  while (!output_.empty()) {
    iovec pieces[kMaxPieces];
    const int count = output_.Front(pieces, kMaxPieces);
    ssize_t sent;
    if (count == 1) {
      sent = send(socket_.get(), pieces[0].iov_base, pieces[0].iov_len, MSG_NOSIGNAL);
    } else {
      msghdr message{};
      message.msg_iov = pieces;
      message.msg_iovlen = static_cast<size_t>(count);
      sent = sendmsg(socket_.get(), &message, MSG_NOSIGNAL);
    }
    if (sent < 0) {
      if (errno == EINTR) {
        continue;
      }
      return errno == EAGAIN || errno == EWOULDBLOCK ? SendResult::kBlocked : SendResult::kFailed;
    }
    output_.Sent(static_cast<size_t>(sent));
    last_progress_ns_ = loop_.now_ns();
  }
  return SendResult::kAllSent;
}

Connection::SendResult Connection::SendTls() {
  Buffer& wire = tls_->wire();
  for (;;) {
    // Encrypt a stretch, then send it in one call.
    while (wire.size() - tls_->wire_sent < kTlsPlainAtOnce && !output_.empty() && tls_->established()) {
      iovec piece;
      output_.Front(&piece, 1);
      const size_t size = std::min(piece.iov_len, kTlsPlainAtOnce);
      if (tls_->Write({static_cast<const uint8_t*>(piece.iov_base), size}) != TlsStream::Result::kOk) {
        return SendResult::kFailed;
      }
      output_.Sent(size);
    }
    if (wire.size() == tls_->wire_sent) {
      wire = Buffer();  // back to the pool
      tls_->wire_sent = 0;
      // Before the handshake is complete the rest waits for the peer, not for the socket.
      return SendResult::kAllSent;
    }
    const ssize_t sent =
        send(socket_.get(), wire.data() + tls_->wire_sent, wire.size() - tls_->wire_sent, MSG_NOSIGNAL);
    if (sent < 0) {
      if (errno == EINTR) {
        continue;
      }
      return errno == EAGAIN || errno == EWOULDBLOCK ? SendResult::kBlocked : SendResult::kFailed;
    }
    tls_->wire_sent += static_cast<size_t>(sent);
    last_progress_ns_ = loop_.now_ns();
    if (tls_->wire_sent == wire.size()) {
      wire.Clear();
      tls_->wire_sent = 0;
    }
  }
}

void Connection::BeginLinger() {
  if (tls_ != nullptr) {
    tls_->Shutdown();
    // One alert of a few bytes: if the socket does not take it at once, nobody is waiting for it.
    Buffer& wire = tls_->wire();
    if (wire.size() > tls_->wire_sent) {
      [[maybe_unused]] const ssize_t sent =
          send(socket_.get(), wire.data() + tls_->wire_sent, wire.size() - tls_->wire_sent, MSG_NOSIGNAL);
    }
  }
  if (ended_) {
    Close();
    return;
  }
  lingering_ = true;
  shutdown(socket_.get(), SHUT_WR);
  linger_timer_ = loop_.AddTimer(loop_.now_ns() + kLingerNs, [this] {
    linger_timer_ = 0;
    Close();
  });
}

}  // namespace msserving
