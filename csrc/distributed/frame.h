// What the worker of a distributed servable, its launchers and its ranks say to each other over one connection each.
//
// A frame is a header of eight bytes (u32 size of the body, u8 kind, three zero bytes) and its body; numbers are
// little-endian, a text is a u32 size and its bytes. Frames are written with FrameWriter and read with FrameReader,
// which never reads past the body and remembers that something was wrong.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "session/session.h"

namespace msserving {

enum class FrameKind : uint8_t {
  kHelloLauncher = 1,  // launcher: magic, identity
  kHelloAgent = 2,     // agent: magic, token, rank
  kConfiguration = 3,  // worker to launcher, answers its hello: the configuration, not looked into
  kClaim = 4,          // launcher: host, scheduler's address or "", ranks
  kLaunch = 5,         // worker to launcher: token, scheduler's address
  kAgentDied = 6,      // launcher: rank, why and the last lines of its log
  kRegister = 7,       // agent: its models
  kLocal = 8,          // worker to agent, answers kRegister: name of the socket that only this machine can reach
  kAttached = 9,       // agent: 1 if it has reached that socket, 0 if not
  kBegin = 10,         // worker to agent: all ranks are there; what local ranks share is in the socket
  kReady = 11,         // agent: waits for runs
  kRun = 12,           // worker to agent
  kDone = 13,          // agent
  kStop = 14,          // worker: the orderly end, with its reason
  kRefused = 15,       // worker: why it ends the connection
  kPing = 16,          // both ways: I live
  kLogWanted = 17,     // worker to launcher: a rank has failed a run; what has it printed?
  kLogLines = 18,      // launcher: rank, the last lines of its log
  kCount,
};

inline constexpr uint32_t kFrameMagic = 0x324b524d;  // "MRK2": also the version of all this
inline constexpr size_t kFrameHeaderBytes = 8;
// Bodies before a rank is registered, and all that a launcher sends.
inline constexpr uint32_t kMaxSmallFrame = 64 << 10;
// What a launcher or an agent takes from the worker that it chose to connect to, but for runs.
inline constexpr uint32_t kMaxConfiguration = 16 << 20;
inline constexpr uint32_t kMaxRunFrame = UINT32_C(3) << 30;
inline constexpr size_t kMaxFrameText = 16 << 10;
inline constexpr uint32_t kMaxModels = 64;     // sub-graphs of a rank
inline constexpr uint32_t kMaxTensors = 1024;  // inputs or outputs of one

class FrameWriter {
 public:
  void U8(uint8_t value) { body_.push_back(static_cast<char>(value)); }
  void U32(uint32_t value) { Raw(&value, sizeof(value)); }
  void U64(uint64_t value) { Raw(&value, sizeof(value)); }
  void Text(std::string_view text) {
    U32(static_cast<uint32_t>(text.size()));
    body_.append(text);
  }
  // Cut to kMaxFrameText: for reasons and logs.
  void ShortText(std::string_view text) { Text(text.substr(0, kMaxFrameText)); }
  void Raw(const void* bytes, size_t size) { body_.append(static_cast<const char*>(bytes), size); }

  const std::string& body() const { return body_; }
  std::string Take() { return std::move(body_); }
  void Clear() { body_.clear(); }

 private:
  std::string body_;
};

class FrameReader {
 public:
  explicit FrameReader(std::span<const uint8_t> body) : left_(body) {}

  uint8_t U8() { return Number<uint8_t>(); }
  uint32_t U32() { return Number<uint32_t>(); }
  uint64_t U64() { return Number<uint64_t>(); }
  // Empty if there is none of at most `limit` bytes.
  std::string_view Text(size_t limit = kMaxFrameText);
  std::span<const uint8_t> Rest() { return std::exchange(left_, {}); }

  bool ok() const { return ok_; }
  // Everything was read, and nothing was wrong.
  bool AtEnd() const { return ok_ && left_.empty(); }
  void Fail() {
    ok_ = false;
    left_ = {};
  }

 private:
  template <typename T>
  T Number() {
    T value{};
    if (left_.size() < sizeof(T)) {
      Fail();
      return value;
    }
    std::memcpy(&value, left_.data(), sizeof(T));
    left_ = left_.subspan(sizeof(T));
    return value;
  }

  std::span<const uint8_t> left_;
  bool ok_ = true;
};

// What one rank's sub-graph takes and gives.
struct RankModel {
  std::string file;
  SessionInfo info;
};

void WriteModels(const std::vector<RankModel>& models, FrameWriter* writer);
bool ReadModels(FrameReader* reader, std::vector<RankModel>* models);

// The tensors of a run or of its outcome: first what they are, then, each from a multiple of 64 bytes of the body on,
// their bytes.
struct RunHead {
  uint64_t seq = 0;
  uint32_t subgraph = 0;
  bool wants_outputs = false;
};
struct DoneHead {
  uint64_t seq = 0;
  bool failed = false;
  std::string text;  // why
};

// `head` becomes the body up to the first tensor's bytes; the bytes follow as PadOf() says. Returns the whole body's
// size, or 0 if it is more than a frame holds. Without `data` only the descriptions are in it.
uint64_t WriteRun(const RunHead& run, std::span<const MsServingTensor> tensors, FrameWriter* head);
uint64_t WriteDone(const DoneHead& done, std::span<const MsServingTensor> tensors, bool data, FrameWriter* head);
// Zero bytes behind a part of this size.
constexpr size_t PadOf(uint64_t size) { return (64 - size % 64) % 64; }

// The tensors point into the body, which must start at a multiple of 64; without data their pointers are null.
bool ReadRun(std::span<const uint8_t> body, RunHead* run, std::vector<MsServingTensor>* tensors);
bool ReadDone(std::span<const uint8_t> body, DoneHead* done, std::vector<MsServingTensor>* tensors);

// Element type, rank and dimensions are a tensor's, and its bytes are as many as they need.
bool IsWhole(const MsServingTensor& tensor);

// A body that grows with what has arrived, so that a size that is only claimed takes no memory. Starts at a multiple
// of 64. Not thread-safe.
class FrameBody {
 public:
  FrameBody() = default;
  FrameBody(FrameBody&& other) noexcept { *this = std::move(other); }
  FrameBody& operator=(FrameBody&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(capacity_, other.capacity_);
    return *this;
  }

  std::span<const uint8_t> bytes() const { return {data_.get(), size_}; }
  size_t size() const { return size_; }
  void Clear() { size_ = 0; }
  // Throws std::bad_alloc. `whole`: the size that it is going to have.
  void Append(std::span<const uint8_t> bytes, size_t whole);

 private:
  struct Free {
    void operator()(uint8_t* memory) const { std::free(memory); }
  };
  std::unique_ptr<uint8_t[], Free> data_;
  size_t size_ = 0;
  size_t capacity_ = 0;
};

class FrameSink {
 public:
  // A body may be taken by moving it away. Not ok: the other side broke the rules, nothing more is parsed.
  virtual Status OnFrame(FrameKind kind, FrameBody* body) = 0;

 protected:
  ~FrameSink() = default;
};

// Bytes as they come, frames as they are complete. One thread.
class FrameParser {
 public:
  explicit FrameParser(uint32_t max_body) : max_body_(max_body) {}
  // From the next header on.
  void set_max_body(uint32_t max_body) { max_body_ = max_body; }
  Status Feed(std::span<const uint8_t> bytes, FrameSink* sink);

 private:
  Status ReadHeader();

  uint32_t max_body_;
  uint8_t header_[kFrameHeaderBytes] = {};
  size_t header_size_ = 0;
  FrameKind kind_ = FrameKind::kPing;
  uint32_t body_size_ = 0;
  FrameBody body_;
};

// The eight bytes before a body.
void MakeFrameHeader(FrameKind kind, uint32_t body_bytes, uint8_t (*header)[kFrameHeaderBytes]);

}  // namespace msserving
