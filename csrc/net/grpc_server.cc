#include "net/grpc_server.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <utility>
#include <vector>

#include "base/log.h"
#include "net/acceptor.h"
#include "net/http2_connection.h"
#include "net/tls.h"

namespace msserving {

// nghttp2's callbacks, on their way to the connection. Memory that runs out ends that connection: nothing may be
// thrown through nghttp2.
struct Http2Callbacks {
  static Http2Connection* Self(void* user_data) { return static_cast<Http2Connection*>(user_data); }

  static Http2Stream* StreamOf(Http2Connection* self, int32_t id) {
    if (self->current_ != nullptr && self->current_->id == id) {
      return self->current_;
    }
    return static_cast<Http2Stream*>(nghttp2_session_get_stream_user_data(self->session_, id));
  }

  template <typename Function>
  static int Guarded(Function function) {
    try {
      return function();
    } catch (const std::bad_alloc&) {
      return NGHTTP2_ERR_CALLBACK_FAILURE;
    }
  }

  static int OnBeginFrame(nghttp2_session*, const nghttp2_frame_hd* head, void* user_data) {
    return Guarded([&] {
      Self(user_data)->BeginFrame(*head);
      return 0;
    });
  }

  static int OnBeginHeaders(nghttp2_session*, const nghttp2_frame* frame, void* user_data) {
    if (frame->headers.cat != NGHTTP2_HCAT_REQUEST) {
      return 0;
    }
    return Guarded([&] { return Self(user_data)->BeginHeaders(frame->hd.stream_id); });
  }

  static int OnHeader(nghttp2_session*, const nghttp2_frame* frame, const uint8_t* name, size_t name_size,
                      const uint8_t* value, size_t value_size, uint8_t, void* user_data) {
    Http2Connection* self = Self(user_data);
    if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST || self->current_ == nullptr) {
      return 0;  // trailers of a request say nothing to us
    }
    return Guarded([&] {
      self->Header(self->current_, {reinterpret_cast<const char*>(name), name_size},
                   {reinterpret_cast<const char*>(value), value_size});
      return 0;
    });
  }

  static int OnData(nghttp2_session*, uint8_t, int32_t id, const uint8_t* data, size_t size, void* user_data) {
    Http2Connection* self = Self(user_data);
    Http2Stream* stream = StreamOf(self, id);
    if (stream == nullptr) {
      return 0;
    }
    return Guarded([&] {
      self->Data(stream, {data, size});
      return 0;
    });
  }

  static int OnFrameReceived(nghttp2_session*, const nghttp2_frame* frame, void* user_data) {
    return Guarded([&] {
      Self(user_data)->FrameReceived(*frame);
      return 0;
    });
  }

  static int OnInvalidFrame(nghttp2_session*, const nghttp2_frame*, int error, void* user_data) {
    return Self(user_data)->FrameRefused(error) ? 0 : NGHTTP2_ERR_CALLBACK_FAILURE;
  }

  static int OnFrameSent(nghttp2_session*, const nghttp2_frame* frame, void* user_data) {
    Self(user_data)->FrameSent(*frame);
    return 0;
  }

  static int OnStreamClosed(nghttp2_session*, int32_t id, uint32_t, void* user_data) {
    Http2Connection* self = Self(user_data);
    Http2Stream* stream = StreamOf(self, id);
    if (stream == nullptr) {
      return 0;
    }
    return Guarded([&] {
      self->StreamClosed(stream);
      return 0;
    });
  }

  static int OnSendData(nghttp2_session*, nghttp2_frame*, const uint8_t* frame_header, size_t size,
                        nghttp2_data_source* source, void* user_data) {
    return Guarded(
        [&] { return Self(user_data)->SendData(static_cast<Http2Stream*>(source->ptr), frame_header, size); });
  }
};

namespace {

constexpr uint64_t kOwnBytesInFlight = uint64_t{2} << 30;

GrpcServerOptions WithOwnCounts(GrpcServerOptions options) {
  if (options.connections == nullptr) {
    options.connections = std::make_shared<std::atomic<size_t>>(0);
  }
  if (options.bytes_in_flight == nullptr) {
    options.bytes_in_flight = std::make_shared<ByteBudget>(kOwnBytesInFlight);
  }
  return options;
}

}  // namespace

Http2Shared::Http2Shared(EventLoop* event_loop, const GrpcServerOptions& server_options, GrpcService* grpc_service)
    : loop(*event_loop), options(WithOwnCounts(server_options)), service(*grpc_service) {
  if (nghttp2_session_callbacks_new(&callbacks) != 0 || nghttp2_option_new(&session_options) != 0) {
    nghttp2_session_callbacks_del(callbacks);
    throw std::bad_alloc();
  }
  session_memory = {
      &session_blocks, [](size_t size, void* blocks) { return static_cast<BlockCache*>(blocks)->Allocate(size); },
      [](void* block, void* blocks) { static_cast<BlockCache*>(blocks)->Free(block); },
      [](size_t count, size_t size, void* blocks) -> void* {
        if (size != 0 && count > SIZE_MAX / size) {
          return nullptr;
        }
        void* block = static_cast<BlockCache*>(blocks)->Allocate(count * size);
        return block == nullptr ? nullptr : std::memset(block, 0, count * size);
      },
      [](void* block, size_t size, void* blocks) { return static_cast<BlockCache*>(blocks)->Reallocate(block, size); }};
  nghttp2_session_callbacks_set_on_begin_frame_callback(callbacks, &Http2Callbacks::OnBeginFrame);
  nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, &Http2Callbacks::OnBeginHeaders);
  nghttp2_session_callbacks_set_on_header_callback(callbacks, &Http2Callbacks::OnHeader);
  nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, &Http2Callbacks::OnData);
  nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, &Http2Callbacks::OnFrameReceived);
  nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(callbacks, &Http2Callbacks::OnInvalidFrame);
  nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, &Http2Callbacks::OnFrameSent);
  nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, &Http2Callbacks::OnStreamClosed);
  nghttp2_session_callbacks_set_send_data_callback(callbacks, &Http2Callbacks::OnSendData);
  nghttp2_option_set_no_closed_streams(session_options, 1);
  // Resets are counted by the connection, more generously: calls that run into their deadline are not an attack.
  nghttp2_option_set_stream_reset_rate_limit(session_options, uint64_t{1} << 40, uint64_t{1} << 40);
}

Http2Shared::~Http2Shared() {
  nghttp2_option_del(session_options);
  nghttp2_session_callbacks_del(callbacks);
}

Http2Stream* Http2Shared::AcquireStream() {
  if (idle_streams.empty()) {
    return new Http2Stream();
  }
  Http2Stream* stream = idle_streams.back().release();
  idle_streams.pop_back();
  return stream;
}

void Http2Shared::ReleaseStream(Http2Stream* stream) {
  constexpr size_t kIdleStreams = 4096;
  std::unique_ptr<Http2Stream> owner(stream);
  if (idle_streams.size() < kIdleStreams) {
    stream->Reset();
    idle_streams.push_back(std::move(owner));
  }
}

void GrpcCall::Reply(OutgoingBody message) {
  auto* stream = static_cast<Http2Stream*>(this);
  stream->connection->Reply(stream, std::move(message));
}

void GrpcCall::ReplyWithError(OutgoingBody message) {
  auto* stream = static_cast<Http2Stream*>(this);
  stream->tells_request_id = true;
  stream->connection->Reply(stream, std::move(message));
}

std::string_view GrpcCall::request_id() {
  if (request_id_.empty()) {
    request_id_ = static_cast<Http2Stream*>(this)->connection->MakeRequestId();
  }
  return request_id_;
}

void GrpcCall::Fail(GrpcStatus status, std::string_view message) {
  auto* stream = static_cast<Http2Stream*>(this);
  stream->connection->Fail(stream, status, message);
}

void GrpcCall::GatherInput() { static_cast<Http2Stream*>(this)->connection->GatherInput(); }

std::string_view GrpcStream::path() const { return static_cast<const Http2Streaming*>(this)->stream->path_view(); }

bool GrpcStream::Send(std::span<const uint8_t> message) {
  Http2Stream* stream = static_cast<Http2Streaming*>(this)->stream;
  return stream->connection->SendMessage(stream, message);
}

size_t GrpcStream::unsent_bytes() const {
  const auto* streaming = static_cast<const Http2Streaming*>(this);
  return streaming->unsent.size() - streaming->sent;
}

void GrpcStream::Finish(GrpcStatus status, std::string_view message) {
  Http2Stream* stream = static_cast<Http2Streaming*>(this)->stream;
  stream->connection->FinishStream(stream, status, message);
}

EventLoop& GrpcStream::loop() { return static_cast<Http2Streaming*>(this)->stream->connection->loop(); }

EventLoop& GrpcCall::loop() { return static_cast<Http2Stream*>(this)->connection->loop(); }

struct GrpcServer::Impl {
  Impl(EventLoop* loop, UniqueFd socket, const GrpcServerOptions& options, GrpcService* service,
       std::shared_ptr<TlsContext> tls_context)
      : shared(loop, options, service),
        tls(std::move(tls_context)),
        refresher(loop, tls),
        acceptor(loop, std::move(socket), [this](UniqueFd fd) { Accepted(std::move(fd)); }) {}

  ~Impl() {
    while (!connections.empty()) {
      Delete(connections.back());
    }
  }

  void Accepted(UniqueFd socket) {
    const size_t count = shared.options.connections->load(std::memory_order_relaxed);
    if (count >= shared.options.max_connections) {
      MSSERVING_LOG_LIMITED(refusals, shared.loop.now_ns(), kWarning,
                            "Refused a gRPC connection: there are " << count << " already");
      return;
    }
    try {
      auto connection = std::make_unique<Http2Connection>(&shared, std::move(socket), tls, this, &Closed);
      connections.reserve(connections.size() + 1);
      connection->Begin();
      connection->index = connections.size();
      connections.push_back(connection.release());
      shared.options.connections->fetch_add(1, std::memory_order_relaxed);
    } catch (const std::bad_alloc&) {
      MSSERVING_LOG(kError, "No memory for another gRPC connection");
    }
  }

  static void Closed(void* owner, Http2Connection* connection) { static_cast<Impl*>(owner)->Delete(connection); }

  void Delete(Http2Connection* connection) {
    connections[connection->index] = connections.back();
    connections[connection->index]->index = connection->index;
    connections.pop_back();
    shared.options.connections->fetch_sub(1, std::memory_order_relaxed);
    delete connection;
  }

  Http2Shared shared;
  std::shared_ptr<TlsContext> tls;
  std::vector<Http2Connection*> connections;
  TlsRefresher refresher;
  RateLimit refusals;
  Acceptor acceptor;
};

GrpcServer::GrpcServer(EventLoop* loop, UniqueFd listening_socket, const GrpcServerOptions& options,
                       GrpcService* service, std::shared_ptr<TlsContext> tls)
    : impl_(std::make_unique<Impl>(loop, std::move(listening_socket), options, service, std::move(tls))) {}

GrpcServer::~GrpcServer() = default;

void GrpcServer::Drain() {
  impl_->acceptor.Stop();
  for (Http2Connection* connection : impl_->connections) {
    connection->Drain();
  }
}

size_t GrpcServer::connections() const { return impl_->connections.size(); }

size_t GrpcServer::calls() const {
  const auto open = std::count_if(impl_->connections.begin(), impl_->connections.end(),
                                  [](const Http2Connection* connection) { return connection->draining_open(); });
  return impl_->shared.calls + static_cast<size_t>(open);
}

}  // namespace msserving
