// Http2Connection's calls of streaming methods: messages in both directions, copied, each way bounded.
#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "net/grpc_text.h"
#include "net/http2_connection.h"
#include "net/http2_headers.h"

namespace msserving {

void Http2Connection::StartStream(Http2Stream* stream, GrpcStreamService* service) {
  if (draining_) {
    Fail(stream, GrpcStatus::kUnavailable, "the server is shutting down");
    return;
  }
  stream->streaming = std::make_unique<Http2Streaming>();
  stream->streaming->stream = stream;
  stream->streaming->service = service;
  stream->state = Http2Stream::State::kRunning;
  ++shared_.calls;
}

void Http2Connection::StreamData(Http2Stream* stream, std::span<const uint8_t> bytes) {
  while (!bytes.empty() && stream->state == Http2Stream::State::kRunning) {
    if (stream->prefix_size < sizeof(stream->prefix)) {
      if (stream->prefix_size == 0) {
        stream->began_ns = loop().now_ns();
      }
      stream->prefix[stream->prefix_size++] = bytes.front();
      bytes = bytes.subspan(1);
      if (stream->prefix_size == sizeof(stream->prefix)) {
        BeginMessage(stream);
      }
    } else {
      Buffer& message = stream->message();
      const size_t take = std::min<size_t>(bytes.size(), stream->message_size - message.size());
      if (!stream->charge.Take(&memory_, take)) {
        Fail(stream, GrpcStatus::kResourceExhausted, RefusalOf(stream));
        return;
      }
      message.Append(bytes.data(), take);
      bytes = bytes.subspan(take);
    }
    if (stream->state == Http2Stream::State::kRunning && stream->prefix_size == sizeof(stream->prefix) &&
        stream->message().size() == stream->message_size) {
      DeliverMessage(stream);
    }
  }
}

void Http2Connection::DeliverMessage(Http2Stream* stream) {
  if (stream->compressed && !Decompress(stream, GrpcStream::kMaxMessageBytes)) {
    return;
  }
  stream->prefix_size = 0;
  const Buffer message = std::move(stream->message());
  const ByteCharge charge = std::move(stream->charge);
  stream->streaming->service->OnMessage(stream->streaming.get(), message.bytes());
}

void Http2Connection::StreamEnded(Http2Stream* stream) {
  if (stream->state != Http2Stream::State::kRunning) {
    return;
  }
  if (stream->prefix_size != 0) {
    Fail(stream, GrpcStatus::kInternal, "the message is cut short");
  } else {
    stream->streaming->service->OnMessagesEnd(stream->streaming.get());
  }
}

bool Http2Connection::SubmitStreamHeaders(Http2Stream* stream) {
  if (std::exchange(stream->streaming->headers_submitted, true)) {
    return true;
  }
  nghttp2_data_provider provider;
  provider.source.ptr = stream;
  provider.read_callback = [](nghttp2_session*, int32_t, uint8_t* to, size_t limit, uint32_t* flags,
                              nghttp2_data_source* source, void* self) {
    return static_cast<Http2Connection*>(self)->ReadStream(static_cast<Http2Stream*>(source->ptr), to, limit, flags);
  };
  const std::span<const nghttp2_nv> headers = ReplyHeaders(stream->knows_encodings, false);
  if (nghttp2_submit_response(session_, stream->id, headers.data(), headers.size(), &provider) != 0) {
    Close();
    return false;
  }
  return true;
}

bool Http2Connection::SendMessage(Http2Stream* stream, std::span<const uint8_t> message) {
  Http2Streaming& streaming = *stream->streaming;
  const size_t waiting = streaming.unsent.size() - streaming.sent;
  if (waiting + message.size() > GrpcStream::kMaxUnsentBytes) {
    return false;
  }
  if (waiting == 0) {
    streaming.progress_ns = loop().now_ns();
    streaming.unsent.Clear();
    streaming.sent = 0;
  }
  const auto size = static_cast<uint32_t>(message.size());
  const uint8_t prefix[5] = {0, static_cast<uint8_t>(size >> 24), static_cast<uint8_t>(size >> 16),
                             static_cast<uint8_t>(size >> 8), static_cast<uint8_t>(size)};
  streaming.unsent.Append(prefix, sizeof(prefix));
  streaming.unsent.Append(message.data(), message.size());
  if (SubmitStreamHeaders(stream)) {
    nghttp2_session_resume_data(session_, stream->id);  // an error: it was not waiting
    ScheduleOutput();
  }
  return true;
}

void Http2Connection::FinishStream(Http2Stream* stream, GrpcStatus status, std::string_view message) {
  Http2Streaming& streaming = *stream->streaming;
  LeaveService(stream);
  if (!streaming.headers_submitted && status != GrpcStatus::kOk) {
    Fail(stream, status, message);
    return;
  }
  ReleaseMessage(stream);
  if (std::exchange(streaming.finished, true)) {
    return;
  }
  streaming.status = status;
  streaming.status_message = PercentEncode(message.substr(0, kMaxStatusMessage));
  streaming.progress_ns = loop().now_ns();
  if (SubmitStreamHeaders(stream)) {
    nghttp2_session_resume_data(session_, stream->id);
    ScheduleOutput();
  }
}

ssize_t Http2Connection::ReadStream(Http2Stream* stream, uint8_t* to, size_t limit, uint32_t* flags) {
  Http2Streaming& streaming = *stream->streaming;
  const size_t size = std::min(limit, streaming.unsent.size() - streaming.sent);
  if (size > 0) {
    std::memcpy(to, streaming.unsent.data() + streaming.sent, size);
    streaming.sent += size;
    streaming.progress_ns = loop().now_ns();
  }
  if (streaming.sent < streaming.unsent.size()) {
    return static_cast<ssize_t>(size);
  }
  if (!streaming.finished) {
    return size > 0 ? static_cast<ssize_t>(size) : ssize_t{NGHTTP2_ERR_DEFERRED};
  }
  *flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
  const nghttp2_nv trailers[] = {StaticHeader("grpc-status", StatusText(streaming.status)),
                                 CopiedHeader("x-request-id", stream->request_id()),
                                 CopiedHeader("grpc-message", streaming.status_message)};
  const size_t count = streaming.status == GrpcStatus::kOk ? 1 : streaming.status_message.empty() ? 2 : 3;
  if (nghttp2_submit_trailer(session_, stream->id, trailers, count) != 0) {
    return NGHTTP2_ERR_CALLBACK_FAILURE;
  }
  return static_cast<ssize_t>(size);
}

// Its time-outs: half a message, or replies that nobody takes.
void Http2Connection::CheckStream(Http2Stream* stream) {
  const GrpcServerOptions& options = shared_.options;
  const int64_t now_ns = loop().now_ns();
  const Http2Streaming& streaming = *stream->streaming;
  if (stream->state == Http2Stream::State::kRunning && stream->prefix_size != 0 && options.incomplete_timeout_ns > 0 &&
      now_ns - stream->began_ns >= options.incomplete_timeout_ns) {
    Fail(stream, GrpcStatus::kDeadlineExceeded, "the message was not complete in time");
    return;
  }
  const bool waits = streaming.sent < streaming.unsent.size() || stream->state == Http2Stream::State::kAnswered;
  if (waits && !has_unsent() && options.slow_reader_timeout_ns > 0 &&
      now_ns - streaming.progress_ns >= options.slow_reader_timeout_ns) {
    nghttp2_submit_rst_stream(session_, NGHTTP2_FLAG_NONE, stream->id, NGHTTP2_CANCEL);
    ScheduleOutput();
  }
}

}  // namespace msserving
