// One HTTP/2 connection of a GrpcServer, and its streams. Internal to grpc_server.
#pragma once

#include <nghttp2/nghttp2.h>

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "net/block_cache.h"
#include "net/compression.h"
#include "net/connection.h"
#include "net/grpc_server.h"
#include "net/request_id.h"

namespace msserving {

class Http2Connection;

// So many events at once, so many a second in the long run.
class TokenBucket {
 public:
  TokenBucket(double burst, double per_second, int64_t now_ns)
      : tokens_(burst), burst_(burst), per_second_(per_second), last_ns_(now_ns) {}
  // False: too many.
  bool Take(int64_t now_ns) {
    tokens_ += static_cast<double>(now_ns - last_ns_) * per_second_ * 1e-9;
    tokens_ = tokens_ > burst_ ? burst_ : tokens_;
    last_ns_ = now_ns;
    tokens_ -= 1;
    return tokens_ >= 0;
  }
  void Give(double tokens) { tokens_ += tokens; }

 private:
  double tokens_, burst_, per_second_;
  int64_t last_ns_;
};

// Stream ids that a peer has left out: RFC 9113 5.1.1 forbids it to open them later. The newest kKept gaps are known;
// HEADERS on an older one count as late ones of a closed stream. Clients that leave none out have nothing kept.
class PassedOverStreams {
 public:
  static constexpr size_t kKept = 64;
  // HEADERS have come on a stream of the peer. False: it was passed over.
  bool Headers(int32_t id);

 private:
  struct Gap {
    int32_t first, last;
  };
  int32_t highest_ = -1;
  std::vector<Gap> gaps_;  // ascending
};

struct Http2Stream;

// What a call of a streaming method has besides: see http2_streaming.cc.
struct Http2Streaming final : GrpcStream {
  Http2Stream* stream = nullptr;
  GrpcStreamService* service = nullptr;
  Buffer unsent;  // framed messages, from sent on
  size_t sent = 0;
  bool headers_submitted = false;
  bool finished = false;  // with:
  GrpcStatus status = GrpcStatus::kOk;
  std::string status_message;
  int64_t progress_ns = 0;  // of what is unsent
};

// A gRPC call from its first header to the last byte of its reply. Used again and again.
struct Http2Stream final : GrpcCall {
  enum class State : uint8_t {
    kReceiving,  // headers or message not complete
    kRunning,    // the service has it
    kAnswered,   // reply or error handed to nghttp2; the service has done with it
  };

  void Reset();  // to the state of a new one; keeps memory worth keeping

  // Connection-owned stream list.
  Http2Stream* previous = nullptr;
  Http2Stream* next = nullptr;
  Http2Connection* connection = nullptr;

  // From the request's headers.
  size_t header_bytes = 0;
  int64_t timeout_ns = kNoDeadline;
  int32_t id = 0;
  State state = State::kReceiving;
  Encoding encoding = Encoding::kIdentity;
  bool is_post = false;
  bool is_grpc = false;
  bool bad_timeout = false;
  bool knows_encodings = false;  // has said something about them
  bool accepts_gzip = false;
  bool remote_ended = false;
  bool tells_request_id = false;

  // Taking the message.
  uint8_t prefix[5];
  uint8_t prefix_size = 0;
  bool compressed = false;
  uint32_t message_size = 0;
  ByteCharge charge;  // for what has come of it

  // Sending the reply.
  uint8_t reply_prefix[5];
  uint8_t reply_prefix_sent = 0;
  OutgoingBody reply;
  BodyReader reader;

  std::unique_ptr<Http2Streaming> streaming;  // null: a unary call

  int64_t began_ns = 0;  // of the present phase: receiving or sending; of a stream, of the message being received
  TimerId deadline_timer = 0;

  Buffer& message() { return message_; }
  std::string& given_request_id() { return request_id_; }
  std::string& path() { return path_; }
  std::string_view path_view() const { return path_; }
  void set_deadline(int64_t at_ns) { deadline_ns_ = at_ns; }
};

// What the connections of one server share.
struct Http2Shared {
  Http2Shared(EventLoop* loop, const GrpcServerOptions& options, GrpcService* service);
  ~Http2Shared();
  Http2Shared(const Http2Shared&) = delete;

  Http2Stream* AcquireStream();
  void ReleaseStream(Http2Stream* stream);

  EventLoop& loop;
  const GrpcServerOptions options;  // nothing in it is null
  GrpcService& service;
  nghttp2_session_callbacks* callbacks = nullptr;
  nghttp2_option* session_options = nullptr;
  BlockCache session_blocks;
  nghttp2_mem session_memory;  // nghttp2's view of session_blocks
  Compression compression;
  RequestIds request_ids;
  size_t calls = 0;  // given to the service and not yet back
  std::vector<std::unique_ptr<Http2Stream>> idle_streams;
};

class Http2Connection final : public Connection {
 public:
  // `closed` is called with this connection when it is over, from OnClosed(); it deletes it.
  using Closed = void (*)(void* owner, Http2Connection* connection);

  Http2Connection(Http2Shared* shared, UniqueFd socket, const std::shared_ptr<TlsContext>& tls, void* owner,
                  Closed closed_callback);
  ~Http2Connection() override;  // running calls end with OnCancelled()

  void Begin();
  void Drain();
  std::string MakeRequestId() { return shared_.request_ids.Next(); }
  // Drain() was called, and new streams are still taken.
  bool draining_open() const { return draining_ && !final_goaway_sent_ && !closed(); }

  // GrpcCall's.
  void Reply(Http2Stream* stream, OutgoingBody message);
  void Fail(Http2Stream* stream, GrpcStatus status, std::string_view message);

  // GrpcStream's.
  bool SendMessage(Http2Stream* stream, std::span<const uint8_t> message);
  void FinishStream(Http2Stream* stream, GrpcStatus status, std::string_view message);

  // The server's list.
  size_t index = 0;

 private:
  friend struct Http2Callbacks;

  void OnBytes(std::span<const uint8_t> bytes) override;
  void OnEnd() override;
  void Produce() override;
  void OnClosed() override;

  // From nghttp2.
  void BeginFrame(const nghttp2_frame_hd& head);
  int BeginHeaders(int32_t id);
  void Header(Http2Stream* stream, std::string_view name, std::string_view value);
  void HeadersComplete(Http2Stream* stream);
  void SetDeadline(Http2Stream* stream);
  void Data(Http2Stream* stream, std::span<const uint8_t> bytes);
  void RemoteEnded(Http2Stream* stream);
  void FrameReceived(const nghttp2_frame& frame);
  bool FrameRefused(int error);  // false: the connection is to be closed
  void FrameSent(const nghttp2_frame& frame);
  void StreamClosed(Http2Stream* stream);
  ssize_t ReadReply(Http2Stream* stream, size_t limit, uint32_t* flags);
  int SendData(Http2Stream* stream, const uint8_t* frame_header, size_t size);

  std::string RefusalOf(Http2Stream* stream) const;  // for bytes that memory_ has not
  void BeginMessage(Http2Stream* stream);
  bool Decompress(Http2Stream* stream, size_t max_bytes);
  void StartCall(Http2Stream* stream);
  void Cancelled(Http2Stream* stream);
  void StartStream(Http2Stream* stream, GrpcStreamService* service);
  void StreamEnded(Http2Stream* stream);
  void StreamData(Http2Stream* stream, std::span<const uint8_t> bytes);
  void DeliverMessage(Http2Stream* stream);
  bool SubmitStreamHeaders(Http2Stream* stream);
  ssize_t ReadStream(Http2Stream* stream, uint8_t* to, size_t limit, uint32_t* flags);
  void DeadlinePassed(Http2Stream* stream);
  void LeaveService(Http2Stream* stream);
  void ReleaseMessage(Http2Stream* stream);
  void FailHttp(Http2Stream* stream, std::string_view status);
  bool CompressReply(Http2Stream* stream, OutgoingBody* message);
  void Release(Http2Stream* stream);
  void TooManyFrames(const char* what);
  void SendFinalGoaway();
  void CheckStream(Http2Stream* stream);
  void ScheduleCheck();
  void Check();

  Http2Shared& shared_;
  ByteShare memory_;
  void* owner_;
  Closed closed_callback_;
  nghttp2_session* session_ = nullptr;
  Http2Stream* first_ = nullptr;    // all streams
  Http2Stream* current_ = nullptr;  // whose headers are being received
  size_t stream_count_ = 0;
  TokenBucket resets_;
  TokenBucket control_frames_;
  PassedOverStreams passed_over_;
  int64_t last_activity_ns_;
  int64_t began_ns_;
  TimerId check_timer_ = 0;
  TimerId goaway_timer_ = 0;
  bool greeted_ = false;  // the peer's first SETTINGS have arrived
  bool draining_ = false;
  bool final_goaway_sent_ = false;
  bool condemned_ = false;  // GOAWAY with an error is on its way
};

}  // namespace msserving
