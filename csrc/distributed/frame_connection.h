// One connection between the worker and a launcher or a rank, at either end: frames, heart-beats, silence.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "distributed/frame.h"
#include "net/connection.h"

namespace msserving {

struct FrameConnectionOptions {
  uint32_t max_body = kMaxSmallFrame;
  int64_t heartbeat_ns = kNanosPerSecond;
  int64_t silence_ns = 5 * kNanosPerSecond;  // without a byte: the other side, or what lies between, is dead
};

class FrameConnection;

// All on the loop's thread.
class FrameOwner {
 public:
  // As FrameSink. Not ok: the connection ends, with this reason.
  virtual Status OnFrame(FrameConnection* connection, FrameKind kind, FrameBody* body) = 0;
  // The last call; the connection may be deleted.
  virtual void OnGone(FrameConnection* connection, const std::string& why) = 0;

 protected:
  ~FrameOwner() = default;
};

// On the loop's thread. Made with `new`; deleted by its owner, at the latest in OnGone().
class FrameConnection final : public Connection, private FrameSink {
 public:
  FrameConnection(EventLoop* loop, UniqueFd socket, const std::shared_ptr<TlsContext>& tls, FrameOwner* owner,
                  const FrameConnectionOptions& options);
  ~FrameConnection() override;

  void Begin() { Start(); }
  void Send(FrameKind kind, std::string_view body = {});
  // `head` as WriteRun() or WriteDone() wrote it for these tensors, `size` what it returned. The tensors' bytes must
  // stay until the other side has them all, or the connection is closed. Returns what HasLeft() is asked with.
  uint64_t SendTensors(FrameKind kind, std::string_view head, uint64_t size, std::span<const MsServingTensor> tensors);
  // All of that frame has left, and nothing refers to its tensors any more.
  bool HasLeft(uint64_t frame) { return appended_ - output().size() >= frame; }
  // Ends it at once; OnGone() follows with this reason.
  void End(const std::string& why);
  // The same, after what was sent has left.
  void EndWhenSent(const std::string& why);
  void set_max_body(uint32_t max_body) { parser_.set_max_body(max_body); }

 private:
  void OnBytes(std::span<const uint8_t> bytes) override;
  void OnEnd() override { End("the other side has closed the connection"); }
  void Produce() override {}
  void OnClosed() override;
  Status OnFrame(FrameKind kind, FrameBody* body) override;
  void Beat();

  FrameOwner* const owner_;
  const FrameConnectionOptions options_;
  FrameParser parser_;
  std::string why_;
  int64_t heard_ns_;
  uint64_t appended_ = 0;  // bytes, to the output
  TimerId beat_ = 0;
};

}  // namespace msserving
