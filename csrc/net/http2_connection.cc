// The connection as a whole: frames, floods, time-outs, the end. Its calls are in http2_calls.cc.
#include "net/http2_connection.h"

#include <algorithm>
#include <iterator>
#include <new>
#include <string_view>
#include <utility>

namespace msserving {
namespace {

// A client whose calls time out resets streams honestly; one that does nothing else is an attacker.
constexpr double kResetBurstSeconds = 4;
// PING, SETTINGS, PRIORITY and empty DATA. Clients that measure their bandwidth ping with the data they get, so
// every frame of a reply gives some back.
constexpr double kControlBurstSeconds = 10;
constexpr double kControlPerReplyFrame = 2;

constexpr int64_t kFinalGoawayNs = 1 * kNanosPerSecond;  // at most, after the first
constexpr int64_t kCheckMinNs = 5 * kNanosPerMilli;
constexpr int64_t kCheckMaxNs = 25 * kNanosPerSecond;

}  // namespace

Http2Connection::Http2Connection(Http2Shared* shared, UniqueFd socket, const std::shared_ptr<TlsContext>& tls,
                                 void* owner, Closed closed_callback)
    : Connection(&shared->loop, std::move(socket), tls),
      shared_(*shared),
      memory_(shared->options.bytes_in_flight.get(), shared->options.connection_bytes_share),
      owner_(owner),
      closed_callback_(closed_callback),
      resets_(kResetBurstSeconds * shared->options.max_resets_per_second, shared->options.max_resets_per_second,
              shared->loop.now_ns()),
      control_frames_(kControlBurstSeconds * shared->options.max_control_frames_per_second,
                      shared->options.max_control_frames_per_second, shared->loop.now_ns()),
      last_activity_ns_(shared->loop.now_ns()),
      began_ns_(shared->loop.now_ns()) {}

Http2Connection::~Http2Connection() {
  loop().CancelTimer(check_timer_);
  loop().CancelTimer(goaway_timer_);
  while (first_ != nullptr) {
    Http2Stream* stream = first_;
    const bool running = stream->state == Http2Stream::State::kRunning;
    LeaveService(stream);
    if (running) {
      Cancelled(stream);
    }
    Release(stream);
  }
  output().Clear();  // what it keeps is charged to memory_
  nghttp2_session_del(session_);
}

void Http2Connection::Begin() {
  if (nghttp2_session_server_new3(&session_, shared_.callbacks, this, shared_.session_options,
                                  &shared_.session_memory) != 0) {
    throw std::bad_alloc();
  }
  const GrpcServerOptions& options = shared_.options;
  const nghttp2_settings_entry settings[] = {
      {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, options.max_concurrent_streams},
      {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, options.stream_window_bytes},
      {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, static_cast<uint32_t>(options.max_header_bytes)},
      {NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1},
  };
  nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, settings, std::size(settings));
  nghttp2_session_set_local_window_size(session_, NGHTTP2_FLAG_NONE, 0,
                                        static_cast<int32_t>(options.connection_window_bytes));
  Start();
  ScheduleOutput();
  ScheduleCheck();
}

void Http2Connection::OnBytes(std::span<const uint8_t> bytes) {
  last_activity_ns_ = loop().now_ns();
  if (condemned_) {
    return;
  }
  const ssize_t taken = nghttp2_session_mem_recv(session_, bytes.data(), bytes.size());
  if (taken < 0) {
    if (taken == NGHTTP2_ERR_FLOODED) {
      TooManyFrames("too many frames to answer");
    } else if (taken == NGHTTP2_ERR_BAD_CLIENT_MAGIC) {
      nghttp2_session_terminate_session(session_, NGHTTP2_PROTOCOL_ERROR);
      condemned_ = true;
    } else {
      Close();
      return;
    }
  }
  // Nothing more to read: the peer has said goodbye, and Produce() ends the connection.
  if (nghttp2_session_want_write(session_) != 0 || condemned_ || nghttp2_session_want_read(session_) == 0) {
    ScheduleOutput();
  }
}

// HTTP/2 has its own way to say goodbye; without it, the peer is gone.
void Http2Connection::OnEnd() { Close(); }

void Http2Connection::Produce() {
  while (!output_full()) {
    const uint8_t* bytes = nullptr;
    const ssize_t size = nghttp2_session_mem_send(session_, &bytes);
    if (size < 0) {
      Close();
      return;
    }
    if (size == 0) {
      break;
    }
    output().Append(bytes, static_cast<size_t>(size));
  }
  if (condemned_ || (nghttp2_session_want_read(session_) == 0 && nghttp2_session_want_write(session_) == 0)) {
    if (!output_full()) {
      CloseWhenSent();
    }
  }
}

void Http2Connection::OnClosed() { closed_callback_(owner_, this); }

void Http2Connection::Drain() {
  if (draining_ || closed()) {
    return;
  }
  draining_ = true;
  // First say that there will be an end, then wait for a round trip: requests that are on their way get in.
  nghttp2_submit_shutdown_notice(session_);
  nghttp2_submit_ping(session_, NGHTTP2_FLAG_NONE, nullptr);
  goaway_timer_ = loop().AddTimer(loop().now_ns() + kFinalGoawayNs, [this] {
    goaway_timer_ = 0;
    SendFinalGoaway();
  });
  ScheduleOutput();
  for (Http2Stream* stream = first_; stream != nullptr; stream = stream->next) {
    if (stream->streaming != nullptr && stream->state == Http2Stream::State::kRunning) {
      stream->streaming->service->OnDrain(stream->streaming.get());
    }
  }
}

void Http2Connection::SendFinalGoaway() {
  if (final_goaway_sent_ || closed()) {
    return;
  }
  final_goaway_sent_ = true;
  nghttp2_submit_goaway(session_, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(session_),
                        NGHTTP2_NO_ERROR, nullptr, 0);
  ScheduleOutput();
}

void Http2Connection::TooManyFrames(const char* what) {
  if (condemned_) {
    return;
  }
  condemned_ = true;
  const std::string_view reason(what);
  nghttp2_submit_goaway(session_, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(session_),
                        NGHTTP2_ENHANCE_YOUR_CALM, reinterpret_cast<const uint8_t*>(reason.data()), reason.size());
  ScheduleOutput();
}

// ---- frames ----

bool PassedOverStreams::Headers(int32_t id) {
  if (id > highest_) {
    if (id > highest_ + 2) {
      if (gaps_.size() == kKept) {
        gaps_.erase(gaps_.begin());
      }
      gaps_.push_back({highest_ + 2, id - 2});
    }
    highest_ = id;
    return true;
  }
  return std::none_of(gaps_.begin(), gaps_.end(), [id](const Gap& gap) { return gap.first <= id && id <= gap.last; });
}

// nghttp2 takes HEADERS on a lower stream that it does not know for late ones of a closed stream, and ignores them.
void Http2Connection::BeginFrame(const nghttp2_frame_hd& head) {
  const bool from_peer = head.stream_id % 2 == 1;
  if (head.type == NGHTTP2_HEADERS && from_peer && !passed_over_.Headers(head.stream_id)) {
    nghttp2_session_terminate_session(session_, NGHTTP2_PROTOCOL_ERROR);
  }
}

void Http2Connection::FrameReceived(const nghttp2_frame& frame) {
  switch (frame.hd.type) {
    case NGHTTP2_HEADERS:
    case NGHTTP2_DATA: {
      const bool ends = (frame.hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
      if (frame.hd.type == NGHTTP2_DATA && !ends) {
        if (frame.hd.length == 0 && !control_frames_.Take(loop().now_ns())) {
          TooManyFrames("too many empty frames");
        }
        return;
      }
      Http2Stream* stream =
          current_ != nullptr && current_->id == frame.hd.stream_id
              ? current_
              : static_cast<Http2Stream*>(nghttp2_session_get_stream_user_data(session_, frame.hd.stream_id));
      if (stream == nullptr) {
        return;
      }
      if (frame.hd.type == NGHTTP2_HEADERS && frame.headers.cat == NGHTTP2_HCAT_REQUEST) {
        HeadersComplete(stream);
      }
      if (ends) {
        RemoteEnded(stream);
      }
      return;
    }
    case NGHTTP2_RST_STREAM:
      if (!resets_.Take(loop().now_ns())) {
        TooManyFrames("too many resets");
      }
      return;
    case NGHTTP2_PING:
      if ((frame.hd.flags & NGHTTP2_FLAG_ACK) != 0) {
        if (draining_) {
          SendFinalGoaway();
        }
        return;
      }
      break;
    case NGHTTP2_SETTINGS:
      greeted_ = true;
      if ((frame.hd.flags & NGHTTP2_FLAG_ACK) != 0) {
        return;
      }
      break;
    case NGHTTP2_PRIORITY: break;
    default: return;
  }
  if (!control_frames_.Take(loop().now_ns())) {
    TooManyFrames("too many control frames");
  }
}

// Streams above the limit, before the peer says that it knows the limit: each costs it a few bytes, and its reset stays
// in memory until it is sent. So they count when they come; a peer that leaves resets unread would never be counted.
bool Http2Connection::FrameRefused(int error) {
  if (error != NGHTTP2_ERR_REFUSED_STREAM || resets_.Take(loop().now_ns())) {
    return true;
  }
  TooManyFrames("too many streams above the limit");
  return !has_unsent();  // a peer that does not read would not read why, either
}

void Http2Connection::FrameSent(const nghttp2_frame& frame) {
  if (frame.hd.type == NGHTTP2_HEADERS) {
    control_frames_.Give(kControlPerReplyFrame);
    if ((frame.hd.flags & NGHTTP2_FLAG_END_STREAM) != 0) {
      auto* stream = static_cast<Http2Stream*>(nghttp2_session_get_stream_user_data(session_, frame.hd.stream_id));
      if (stream != nullptr && !stream->remote_ended) {
        // Answered before the request was complete: the rest of it is not wanted.
        nghttp2_submit_rst_stream(session_, NGHTTP2_FLAG_NONE, frame.hd.stream_id, NGHTTP2_NO_ERROR);
      }
    }
  } else if (frame.hd.type == NGHTTP2_DATA) {
    control_frames_.Give(kControlPerReplyFrame);
  } else if (frame.hd.type == NGHTTP2_RST_STREAM && frame.rst_stream.error_code != NGHTTP2_NO_ERROR &&
             frame.rst_stream.error_code != NGHTTP2_REFUSED_STREAM) {
    // What makes us reset a stream is the peer's doing as well. Refused ones have been counted.
    if (!resets_.Take(loop().now_ns())) {
      TooManyFrames("too many broken streams");
    }
  }
}

// ---- time ----

void Http2Connection::ScheduleCheck() {
  int64_t shortest_ns = kCheckMaxNs * 4;
  for (const int64_t timeout_ns : {shared_.options.idle_timeout_ns, shared_.options.incomplete_timeout_ns,
                                   shared_.options.slow_reader_timeout_ns}) {
    if (timeout_ns > 0) {
      shortest_ns = std::min(shortest_ns, timeout_ns);
    }
  }
  const int64_t period_ns = std::clamp(shortest_ns / 4, kCheckMinNs, kCheckMaxNs);
  check_timer_ = loop().AddTimer(loop().now_ns() + period_ns, [this] {
    check_timer_ = 0;
    Check();
  });
}

// A few times within the shortest timeout, instead of a timer for every stream.
void Http2Connection::Check() {
  if (closed()) {
    return;
  }
  ScheduleCheck();
  const GrpcServerOptions& options = shared_.options;
  const int64_t now_ns = loop().now_ns();
  const auto passed = [now_ns](int64_t timeout_ns, int64_t since_ns) {
    return timeout_ns > 0 && now_ns - since_ns >= timeout_ns;
  };
  if (!greeted_ && passed(options.incomplete_timeout_ns, began_ns_)) {
    Close();
    return;
  }
  if (has_unsent() && passed(options.slow_reader_timeout_ns, last_progress_ns())) {
    Close();
    return;
  }
  for (Http2Stream* stream = first_; stream != nullptr; stream = stream->next) {
    if (stream->state == Http2Stream::State::kReceiving && passed(options.incomplete_timeout_ns, stream->began_ns)) {
      Fail(stream, GrpcStatus::kDeadlineExceeded, "the request was not complete in time");
    } else if (stream->streaming != nullptr) {
      CheckStream(stream);
    } else if (stream->state == Http2Stream::State::kAnswered && !has_unsent() &&
               passed(options.slow_reader_timeout_ns, stream->began_ns)) {
      nghttp2_submit_rst_stream(session_, NGHTTP2_FLAG_NONE, stream->id, NGHTTP2_CANCEL);
      ScheduleOutput();
    }
  }
  if (stream_count_ == 0 && passed(options.idle_timeout_ns, last_activity_ns_)) {
    nghttp2_session_terminate_session(session_, NGHTTP2_NO_ERROR);
    ScheduleOutput();
  }
}

}  // namespace msserving
