// Unary gRPC on nghttp2: any number of calls in flight, windows of 2^30 bytes so that the client's flow control is not
// what is measured.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <nghttp2/nghttp2.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <iterator>
#include <string_view>

#include "load/clients/client.h"

namespace msserving::load {
namespace {

constexpr size_t kReadBytes = 256 << 10;

nghttp2_nv Header(std::string_view name, std::string_view value) {
  return {reinterpret_cast<uint8_t*>(const_cast<char*>(name.data())),
          reinterpret_cast<uint8_t*>(const_cast<char*>(value.data())), name.size(), value.size(), NGHTTP2_NV_FLAG_NONE};
}

class GrpcClient final : public Client {
 public:
  GrpcClient(int port, const Request& request, OnDone on_done)
      : port_(port), request_(request), on_done_(std::move(on_done)) {
    if (request_.deadline_ms > 0) {
      deadline_ = std::to_string(request_.deadline_ms) + "m";
    }
  }
  ~GrpcClient() override {
    nghttp2_session_del(session_);
    if (fd_ >= 0) {
      close(fd_);
    }
  }

  bool Connect() override;
  bool HasRoom() const override { return true; }
  void Send(Call* call) override;
  bool Flush() override;
  bool Receive() override;
  bool wants_write() const override { return out_sent_ < out_.size(); }

 private:
  static Call* CallOf(nghttp2_session* session, int32_t id) {
    return static_cast<Call*>(nghttp2_session_get_stream_user_data(session, id));
  }
  static ssize_t ReadBody(nghttp2_session*, int32_t, uint8_t* to, size_t limit, uint32_t* flags,
                          nghttp2_data_source* source, void* user);
  static int OnData(nghttp2_session*, uint8_t, int32_t, const uint8_t*, size_t, void*);
  static int OnHeader(nghttp2_session*, const nghttp2_frame*, const uint8_t*, size_t, const uint8_t*, size_t, uint8_t,
                      void*);
  static int OnStreamClose(nghttp2_session*, int32_t, uint32_t, void*);

  const int port_;
  const Request& request_;
  const OnDone on_done_;
  std::string deadline_;
  nghttp2_session* session_ = nullptr;
  std::string out_;
  size_t out_sent_ = 0;
};

ssize_t GrpcClient::ReadBody(nghttp2_session*, int32_t, uint8_t* to, size_t limit, uint32_t* flags,
                             nghttp2_data_source* source, void* user) {
  auto* call = static_cast<Call*>(source->ptr);
  const std::string& body = static_cast<GrpcClient*>(user)->request_.body;
  const size_t size = std::min(limit, body.size() - call->sent);
  std::memcpy(to, body.data() + call->sent, size);
  call->sent += size;
  if (call->sent == body.size()) {
    *flags |= NGHTTP2_DATA_FLAG_EOF;
  }
  return static_cast<ssize_t>(size);
}

int GrpcClient::OnData(nghttp2_session* session, uint8_t, int32_t id, const uint8_t* data, size_t size, void*) {
  if (Call* call = CallOf(session, id)) {
    call->reply.append(reinterpret_cast<const char*>(data), size);
  }
  return 0;
}

int GrpcClient::OnHeader(nghttp2_session* session, const nghttp2_frame* frame, const uint8_t* name, size_t name_size,
                         const uint8_t* value, size_t value_size, uint8_t, void*) {
  if (std::string_view(reinterpret_cast<const char*>(name), name_size) == "grpc-status") {
    if (Call* call = CallOf(session, frame->hd.stream_id)) {
      const std::string_view status(reinterpret_cast<const char*>(value), value_size);
      call->error = status == "0" ? "" : "status " + std::string(status);
    }
  }
  return 0;
}

int GrpcClient::OnStreamClose(nghttp2_session* session, int32_t id, uint32_t code, void* user) {
  if (Call* call = CallOf(session, id)) {
    auto* self = static_cast<GrpcClient*>(user);
    if (code != 0) {
      call->error = "reset " + std::to_string(code);
    }
    self->on_done_(self, call);
  }
  return 0;
}

bool GrpcClient::Connect() {
  fd_ = ConnectLoopback(port_);
  ++connects_;
  if (fd_ < 0) {
    return false;
  }
  nghttp2_session_callbacks* callbacks;
  nghttp2_session_callbacks_new(&callbacks);
  nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, &OnData);
  nghttp2_session_callbacks_set_on_header_callback(callbacks, &OnHeader);
  nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, &OnStreamClose);
  nghttp2_option* options;
  nghttp2_option_new(&options);
  nghttp2_option_set_no_closed_streams(options, 1);
  nghttp2_option_set_peer_max_concurrent_streams(options, 1024);
  nghttp2_session_client_new2(&session_, callbacks, this, options);
  nghttp2_option_del(options);
  nghttp2_session_callbacks_del(callbacks);
  const nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 1u << 30}};
  nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, settings, std::size(settings));
  nghttp2_session_set_local_window_size(session_, NGHTTP2_FLAG_NONE, 0, 1 << 30);
  return true;
}

void GrpcClient::Send(Call* call) {
  call->error = "no grpc-status";
  std::vector<nghttp2_nv> headers = {Header(":method", "POST"),
                                     Header(":scheme", "http"),
                                     Header(":path", request_.path),
                                     Header(":authority", "load"),
                                     Header("content-type", "application/grpc"),
                                     Header("te", "trailers")};
  for (const auto& [name, value] : request_.headers) {
    headers.push_back(Header(name, value));
  }
  if (!deadline_.empty()) {
    headers.push_back(Header("grpc-timeout", deadline_));
  }
  nghttp2_data_provider provider;
  provider.source.ptr = call;
  provider.read_callback = &ReadBody;
  nghttp2_submit_request(session_, nullptr, headers.data(), headers.size(), &provider, call);
}

bool GrpcClient::Flush() {
  const uint8_t* bytes;
  ssize_t size;
  while ((size = nghttp2_session_mem_send(session_, &bytes)) > 0) {
    out_.append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(size));
  }
  while (out_sent_ < out_.size()) {
    const ssize_t sent = send(fd_, out_.data() + out_sent_, out_.size() - out_sent_, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0) {
      return errno == EAGAIN;
    }
    out_sent_ += static_cast<size_t>(sent);
  }
  out_.clear();
  out_sent_ = 0;
  return true;
}

bool GrpcClient::Receive() {
  static std::vector<uint8_t> scratch(kReadBytes);
  const ssize_t got = recv(fd_, scratch.data(), scratch.size(), MSG_DONTWAIT);
  if (got < 0) {
    return errno == EAGAIN;
  }
  return got > 0 && nghttp2_session_mem_recv(session_, scratch.data(), static_cast<size_t>(got)) >= 0;
}

}  // namespace

int ConnectLoopback(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) {
    const int error = errno;
    close(fd);
    errno = error;
    return -1;
  }
  const int one = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
  return fd;
}

std::unique_ptr<Client> MakeGrpcClient(int port, const Request& request, Client::OnDone on_done) {
  return std::make_unique<GrpcClient>(port, request, std::move(on_done));
}

}  // namespace msserving::load
