// Http2Connection's answers to gRPC calls: replies, errors, and how they get into the output.
#include <algorithm>
#include <string>
#include <utility>

#include "net/grpc_text.h"
#include "net/http2_connection.h"
#include "net/http2_headers.h"

namespace msserving {
namespace {

// Below this a compressed reply would hardly be smaller.
constexpr size_t kCompressFrom = 128;

}  // namespace

void Http2Connection::Reply(Http2Stream* stream, OutgoingBody message) {
  size_t size = message.TotalSize();
  if (size > shared_.options.max_send_bytes || size > UINT32_MAX) {
    Fail(stream, GrpcStatus::kResourceExhausted, TooLarge("Sent", size, shared_.options.max_send_bytes));
    return;
  }
  const bool compressed = stream->encoding == Encoding::kGzip && stream->accepts_gzip && size >= kCompressFrom &&
                          CompressReply(stream, &message);
  LeaveService(stream);
  ReleaseMessage(stream);
  size = compressed ? message.encoded.size() : size;
  stream->reply = std::move(message);
  stream->reply.charge.TakeAnyway(&memory_, size);
  stream->reader = BodyReader(&stream->reply);
  stream->reply_prefix[0] = compressed ? 1 : 0;
  stream->reply_prefix[1] = static_cast<uint8_t>(size >> 24);
  stream->reply_prefix[2] = static_cast<uint8_t>(size >> 16);
  stream->reply_prefix[3] = static_cast<uint8_t>(size >> 8);
  stream->reply_prefix[4] = static_cast<uint8_t>(size);
  stream->began_ns = loop().now_ns();
  nghttp2_data_provider provider;
  provider.source.ptr = stream;
  provider.read_callback = [](nghttp2_session*, int32_t, uint8_t*, size_t limit, uint32_t* flags,
                              nghttp2_data_source* source, void* self) {
    return static_cast<Http2Connection*>(self)->ReadReply(static_cast<Http2Stream*>(source->ptr), limit, flags);
  };
  std::span<const nghttp2_nv> headers = ReplyHeaders(stream->knows_encodings, compressed);
  nghttp2_nv with_id[kMaxReplyHeaders + 1];
  if (stream->tells_request_id) {
    std::copy(headers.begin(), headers.end(), with_id);
    with_id[headers.size()] = CopiedHeader("x-request-id", stream->request_id());
    headers = {with_id, headers.size() + 1};
  }
  if (nghttp2_submit_response(session_, stream->id, headers.data(), headers.size(), &provider) != 0) {
    Close();
    return;
  }
  ScheduleOutput();
}

bool Http2Connection::CompressReply(Http2Stream*, OutgoingBody* message) {
  const size_t size = message->TotalSize();
  OutgoingBody packed;
  packed.encoded = loop().buffers().Acquire(size);
  shared_.compression.BeginGzip(&packed.encoded, size);
  for (BodyReader reader(message); reader.left() > 0;) {
    shared_.compression.AddGzip(reader.Next(SIZE_MAX));
  }
  shared_.compression.EndGzip();
  if (packed.encoded.size() >= size) {
    return false;
  }
  *message = std::move(packed);
  return true;
}

void Http2Connection::Fail(Http2Stream* stream, GrpcStatus status, std::string_view message) {
  if (stream->streaming != nullptr) {
    if (stream->state == Http2Stream::State::kRunning) {  // the service has not asked for it
      LeaveService(stream);
      Cancelled(stream);
    }
    if (stream->streaming->headers_submitted) {
      FinishStream(stream, status, message);
      return;
    }
  }
  LeaveService(stream);
  ReleaseMessage(stream);
  stream->began_ns = loop().now_ns();
  const std::string encoded = PercentEncode(message.substr(0, kMaxStatusMessage));
  const std::string_view code = StatusText(status);
  const nghttp2_nv headers[] = {StaticHeader(":status", "200"), StaticHeader("content-type", "application/grpc"),
                                StaticHeader("grpc-status", code), CopiedHeader("x-request-id", stream->request_id()),
                                CopiedHeader("grpc-message", encoded)};
  const size_t count = encoded.empty() ? 4 : 5;
  if (nghttp2_submit_response(session_, stream->id, headers, count, nullptr) != 0) {
    Close();
    return;
  }
  ScheduleOutput();
}

// For what is not gRPC at all.
void Http2Connection::FailHttp(Http2Stream* stream, std::string_view status) {
  LeaveService(stream);
  const nghttp2_nv headers[] = {StaticHeader(":status", status), StaticHeader("content-length", "0"),
                                StaticHeader("allow", "POST")};
  if (nghttp2_submit_response(session_, stream->id, headers, status == "405" ? 3 : 2, nullptr) != 0) {
    Close();
    return;
  }
  ScheduleOutput();
}

ssize_t Http2Connection::ReadReply(Http2Stream* stream, size_t limit, uint32_t* flags) {
  const size_t left = sizeof(stream->reply_prefix) - stream->reply_prefix_sent + stream->reader.left();
  *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
  if (left > limit) {
    return static_cast<ssize_t>(limit);
  }
  *flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
  const std::span<const nghttp2_nv> trailers = OkTrailers();
  if (nghttp2_submit_trailer(session_, stream->id, trailers.data(), trailers.size()) != 0) {
    return NGHTTP2_ERR_CALLBACK_FAILURE;
  }
  return static_cast<ssize_t>(left);
}

int Http2Connection::SendData(Http2Stream* stream, const uint8_t* frame_header, size_t size) {
  OutputQueue& queue = output();
  queue.Append(frame_header, 9);
  stream->began_ns = loop().now_ns();
  const size_t prefix = std::min<size_t>(size, sizeof(stream->reply_prefix) - stream->reply_prefix_sent);
  queue.Append(stream->reply_prefix + stream->reply_prefix_sent, prefix);
  stream->reply_prefix_sent = static_cast<uint8_t>(stream->reply_prefix_sent + prefix);
  for (size_t left = size - prefix; left > 0;) {
    const std::span<const uint8_t> piece = stream->reader.Next(left);
    queue.AppendAuto(piece);
    left -= piece.size();
  }
  return output_full() ? NGHTTP2_ERR_PAUSE : 0;
}

}  // namespace msserving
