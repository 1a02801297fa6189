// Http2Connection's streams, which are gRPC calls: their headers and messages. Their answers are in http2_replies.cc.
#include <algorithm>
#include <new>
#include <string>
#include <utility>

#include "net/grpc_text.h"
#include "net/http2_connection.h"
#include "net/http2_headers.h"

namespace msserving {
namespace {

// Of a message whose size is only claimed so far; the rest is taken when this much has really come.
constexpr size_t kFirstReserve = 256 << 10;

}  // namespace

void Http2Stream::Reset() {
  previous = next = nullptr;
  connection = nullptr;
  header_bytes = 0;
  timeout_ns = kNoDeadline;
  state = State::kReceiving;
  encoding = Encoding::kIdentity;
  is_post = is_grpc = bad_timeout = knows_encodings = accepts_gzip = remote_ended = tells_request_id = false;
  prefix_size = 0;
  compressed = false;
  message_size = 0;
  charge.Reset();
  reply_prefix_sent = 0;
  deadline_timer = 0;
  deadline_ns_ = kNoDeadline;
  context = nullptr;
  streaming.reset();
  path_.clear();
  request_id_.clear();
}

int Http2Connection::BeginHeaders(int32_t id) {
  Http2Stream* stream = shared_.AcquireStream();
  stream->connection = this;
  stream->id = id;
  stream->began_ns = loop().now_ns();
  stream->next = first_;
  if (first_ != nullptr) {
    first_->previous = stream;
  }
  first_ = stream;
  current_ = stream;
  ++stream_count_;
  return nghttp2_session_set_stream_user_data(session_, id, stream);
}

void Http2Connection::Release(Http2Stream* stream) {
  ReleaseMessage(stream);
  // Parts of it may still wait to be written.
  output().Keep(std::move(stream->reply));
  (stream->previous != nullptr ? stream->previous->next : first_) = stream->next;
  if (stream->next != nullptr) {
    stream->next->previous = stream->previous;
  }
  if (current_ == stream) {
    current_ = nullptr;
  }
  --stream_count_;
  shared_.ReleaseStream(stream);
}

void Http2Connection::StreamClosed(Http2Stream* stream) {
  const bool running = stream->state == Http2Stream::State::kRunning;
  LeaveService(stream);
  if (running) {
    Cancelled(stream);
  }
  Release(stream);
}

void Http2Connection::Header(Http2Stream* stream, std::string_view name, std::string_view value) {
  stream->header_bytes += name.size() + value.size() + 32;  // as HTTP/2 counts
  if (stream->header_bytes > shared_.options.max_header_bytes) {
    return;  // refused when they are complete; nothing more is kept
  }
  switch (name.size()) {
    case 5:
      if (name == ":path") {
        stream->path().assign(value);
      }
      break;
    case 7:
      if (name == ":method") {
        stream->is_post = value == "POST";
      }
      break;
    case 12:
      if (name == "content-type") {
        stream->is_grpc = value == "application/grpc" || IsGrpcContentType(value);
      } else if (name == "grpc-timeout") {
        stream->bad_timeout = !ParseGrpcTimeout(value, &stream->timeout_ns);
      } else if (name == "x-request-id" && IsSaneRequestId(value)) {
        stream->given_request_id().assign(value);
      }
      break;
    case 13:
      if (name == "grpc-encoding") {
        stream->knows_encodings = true;
        stream->encoding = value == "gzip"       ? Encoding::kGzip
                           : value == "deflate"  ? Encoding::kDeflate
                           : value == "identity" ? Encoding::kIdentity
                                                 : Encoding::kUnknown;
      }
      break;
    case 20:
      if (name == "grpc-accept-encoding") {
        stream->knows_encodings = true;
        stream->accepts_gzip = ListHas(value, "gzip");
      }
      break;
    default: break;
  }
}

void Http2Connection::HeadersComplete(Http2Stream* stream) {
  if (stream->header_bytes > shared_.options.max_header_bytes) {
    Fail(stream, GrpcStatus::kResourceExhausted,
         "Received headers larger than max (" + std::to_string(stream->header_bytes) + " vs. " +
             std::to_string(shared_.options.max_header_bytes) + ")");
  } else if (!stream->is_post) {
    FailHttp(stream, "405");
  } else if (!stream->is_grpc) {
    FailHttp(stream, "415");
  } else if (stream->bad_timeout) {
    Fail(stream, GrpcStatus::kInternal, "the grpc-timeout header is not a timeout");
  } else if (!shared_.service.HasMethod(stream->path_view())) {
    Fail(stream, GrpcStatus::kUnimplemented, "unknown method " + std::string(stream->path_view().substr(0, 256)));
  } else {
    SetDeadline(stream);
    if (stream->state == Http2Stream::State::kReceiving) {
      if (GrpcStreamService* service = shared_.service.Streaming(stream->path_view()); service != nullptr) {
        StartStream(stream, service);
      } else {
        shared_.service.OnHeaders(stream);
      }
    }
  }
}

void Http2Connection::SetDeadline(Http2Stream* stream) {
  if (stream->timeout_ns != kNoDeadline) {
    const int64_t now_ns = loop().now_ns();
    stream->set_deadline(stream->timeout_ns > kNoDeadline - now_ns ? kNoDeadline : now_ns + stream->timeout_ns);
    if (stream->timeout_ns == 0) {
      Fail(stream, GrpcStatus::kDeadlineExceeded, "Deadline Exceeded");
    } else if (stream->deadline_ns() != kNoDeadline) {
      stream->deadline_timer = loop().AddTimer(stream->deadline_ns(), [stream] {
        stream->deadline_timer = 0;
        stream->connection->DeadlinePassed(stream);
      });
    }
  }
}

void Http2Connection::BeginMessage(Http2Stream* stream) {
  const uint8_t* prefix = stream->prefix;
  const size_t limit = stream->streaming == nullptr
                           ? shared_.options.max_receive_bytes
                           : std::min(shared_.options.max_receive_bytes, GrpcStream::kMaxMessageBytes);
  stream->compressed = prefix[0] == 1;
  stream->message_size = uint32_t{prefix[1]} << 24 | uint32_t{prefix[2]} << 16 | uint32_t{prefix[3]} << 8 | prefix[4];
  if (prefix[0] > 1) {
    Fail(stream, GrpcStatus::kInternal, "the message's compression flag is neither 0 nor 1");
  } else if (stream->compressed && stream->encoding == Encoding::kUnknown) {
    Fail(stream, GrpcStatus::kUnimplemented, "the message's grpc-encoding is not supported");
  } else if (stream->compressed && stream->encoding == Encoding::kIdentity) {
    Fail(stream, GrpcStatus::kInternal, "the message is marked as compressed, but there is no grpc-encoding");
  } else if (stream->message_size > limit) {
    Fail(stream, GrpcStatus::kResourceExhausted, TooLarge("Received", stream->message_size, limit));
  } else {
    stream->message() = loop().buffers().Acquire(std::min<size_t>(stream->message_size, kFirstReserve));
  }
}

void Http2Connection::Data(Http2Stream* stream, std::span<const uint8_t> bytes) {
  if (stream->streaming != nullptr) {
    StreamData(stream, bytes);
    return;
  }
  while (!bytes.empty() && stream->state == Http2Stream::State::kReceiving) {
    if (stream->prefix_size < sizeof(stream->prefix)) {
      stream->prefix[stream->prefix_size++] = bytes.front();
      bytes = bytes.subspan(1);
      if (stream->prefix_size == sizeof(stream->prefix)) {
        BeginMessage(stream);
      }
      continue;
    }
    Buffer& message = stream->message();
    const size_t take = std::min<size_t>(bytes.size(), stream->message_size - message.size());
    if (take == 0) {
      Fail(stream, GrpcStatus::kUnimplemented, "more than one message in a unary call");
      return;
    }
    if (!stream->charge.Take(&memory_, take)) {
      Fail(stream, GrpcStatus::kResourceExhausted, RefusalOf(stream));
      return;
    }
    if (message.capacity() < message.size() + take) {
      message.Reserve(stream->message_size);
    }
    message.Append(bytes.data(), take);
    bytes = bytes.subspan(take);
  }
}

std::string Http2Connection::RefusalOf(Http2Stream* stream) const {
  return memory_.Refusal(stream->message_size - stream->message().size(), stream->charge.bytes());
}

void Http2Connection::RemoteEnded(Http2Stream* stream) {
  stream->remote_ended = true;
  if (stream->streaming != nullptr) {
    StreamEnded(stream);
    return;
  }
  if (stream->state != Http2Stream::State::kReceiving) {
    return;
  }
  if (stream->prefix_size == 0) {
    Fail(stream, GrpcStatus::kUnimplemented, "no message in a unary call");
  } else if (stream->prefix_size < sizeof(stream->prefix) || stream->message().size() < stream->message_size) {
    Fail(stream, GrpcStatus::kInternal, "the message is cut short");
  } else if (!stream->compressed || Decompress(stream, shared_.options.max_receive_bytes)) {
    StartCall(stream);
  }
}

bool Http2Connection::Decompress(Http2Stream* stream, size_t max_bytes) {
  const size_t limit = std::min<uint64_t>(max_bytes, memory_.left(stream->charge.bytes()));
  Buffer plain = loop().buffers().Acquire(std::min(stream->message().size() * 4, limit));
  switch (shared_.compression.Inflate(stream->encoding, stream->message().bytes(), limit, &plain)) {
    case Compression::Result::kOk: break;
    case Compression::Result::kCorrupt:
      Fail(stream, GrpcStatus::kInternal, "the compressed message is corrupt");
      return false;
    case Compression::Result::kTooLarge:
      Fail(stream, GrpcStatus::kResourceExhausted,
           limit < max_bytes ? memory_.Refusal(plain.size(), stream->charge.bytes())
                             : TooLarge("Received", plain.size(), max_bytes));
      return false;
  }
  ReleaseMessage(stream);
  stream->charge.TakeAnyway(&memory_, plain.size());
  stream->message() = std::move(plain);
  return true;
}

void Http2Connection::StartCall(Http2Stream* stream) {
  stream->state = Http2Stream::State::kRunning;
  ++shared_.calls;
  shared_.service.OnCall(stream);
}

void Http2Connection::ReleaseMessage(Http2Stream* stream) {
  stream->charge.Reset();
  stream->message() = Buffer();
}

// Whoever had the stream, neither the service nor its deadline do any more. The message stays until it is released.
void Http2Connection::LeaveService(Http2Stream* stream) {
  if (stream->deadline_timer != 0) {
    loop().CancelTimer(stream->deadline_timer);
    stream->deadline_timer = 0;
  }
  if (stream->state == Http2Stream::State::kRunning) {
    --shared_.calls;
  }
  stream->state = Http2Stream::State::kAnswered;
}

void Http2Connection::Cancelled(Http2Stream* stream) {
  if (stream->streaming != nullptr) {
    stream->streaming->service->OnCancelled(stream->streaming.get());
  } else {
    shared_.service.OnCancelled(stream);
  }
}

void Http2Connection::DeadlinePassed(Http2Stream* stream) {
  if (stream->state == Http2Stream::State::kRunning && stream->streaming == nullptr) {
    shared_.service.OnCancelled(stream);
  }
  Fail(stream, GrpcStatus::kDeadlineExceeded, "Deadline Exceeded");
}

// ---- answers ----

}  // namespace msserving
