#include "distributed/frame_connection.h"

#include <new>
#include <utility>

namespace msserving {
namespace {

constexpr uint8_t kZero[64] = {};

}  // namespace

FrameConnection::FrameConnection(EventLoop* loop, UniqueFd socket, const std::shared_ptr<TlsContext>& tls,
                                 FrameOwner* owner, const FrameConnectionOptions& options)
    : Connection(loop, std::move(socket), tls),
      owner_(owner),
      options_(options),
      parser_(options.max_body),
      heard_ns_(loop->clock().NowNs()) {
  beat_ = loop->AddTimer(heard_ns_ + options_.heartbeat_ns, [this] { Beat(); });
}

FrameConnection::~FrameConnection() { loop().CancelTimer(beat_); }

void FrameConnection::Send(FrameKind kind, std::string_view body) {
  if (closed()) {
    return;
  }
  uint8_t header[kFrameHeaderBytes];
  MakeFrameHeader(kind, static_cast<uint32_t>(body.size()), &header);
  output().Append(header, sizeof(header));
  output().Append(body.data(), body.size());
  appended_ += sizeof(header) + body.size();
  ScheduleOutput();
}

uint64_t FrameConnection::SendTensors(FrameKind kind, std::string_view head, uint64_t size,
                                      std::span<const MsServingTensor> tensors) {
  if (closed()) {
    return appended_;
  }
  uint8_t header[kFrameHeaderBytes];
  MakeFrameHeader(kind, static_cast<uint32_t>(size), &header);
  output().Append(header, sizeof(header));
  output().Append(head.data(), head.size());
  if (size > head.size()) {
    for (const MsServingTensor& tensor : tensors) {
      output().AppendAuto({static_cast<const uint8_t*>(tensor.data), tensor.bytes});
      output().Append(kZero, PadOf(tensor.bytes));
    }
  }
  appended_ += sizeof(header) + size;
  ScheduleOutput();
  return appended_;
}

void FrameConnection::End(const std::string& why) {
  if (why_.empty()) {
    why_ = why;
  }
  Close();
}

void FrameConnection::EndWhenSent(const std::string& why) {
  if (why_.empty()) {
    why_ = why;
  }
  CloseWhenSent();
}

void FrameConnection::OnBytes(std::span<const uint8_t> bytes) {
  heard_ns_ = loop().now_ns();
  try {
    if (Status status = parser_.Feed(bytes, this); !status.ok()) {
      End(status.message());
    }
  } catch (const std::bad_alloc&) {
    End("there is no memory for what the other side sends");
  }
}

Status FrameConnection::OnFrame(FrameKind kind, FrameBody* body) {
  if (closed()) {
    return Status(ErrorKind::kCancelled, why_);
  }
  return kind == FrameKind::kPing ? Status::Ok() : owner_->OnFrame(this, kind, body);
}

void FrameConnection::OnClosed() {
  if (!handshake_failure().empty()) {
    why_ = "the TLS handshake failed: " + handshake_failure();
  }
  owner_->OnGone(this, why_.empty() ? "the connection was reset" : why_);
}

void FrameConnection::Beat() {
  beat_ = 0;
  if (closed()) {
    return;
  }
  const int64_t now_ns = loop().now_ns();
  if (now_ns - heard_ns_ > options_.silence_ns) {
    End("nothing was heard for " + std::to_string(options_.silence_ns / kNanosPerMilli) + " ms");
    return;
  }
  if (!has_unsent()) {
    Send(FrameKind::kPing);
  }
  beat_ = loop().AddTimer(now_ns + options_.heartbeat_ns, [this] { Beat(); });
}

}  // namespace msserving
