// A small gRPC client on nghttp2 for tests: one connection, unary calls, blocking, on the caller's thread.
#pragma once

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <nghttp2/nghttp2.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "../support/loopback.h"

namespace msserving {

class GrpcTestClient {
 public:
  struct Call {
    std::string request;
    size_t sent = 0;
    std::map<std::string, std::string> headers;  // trailers as well
    std::string body;                            // frames, each with its five bytes before it
    bool closed = false;

    std::string status() const { return headers.contains("grpc-status") ? headers.at("grpc-status") : "none"; }
    std::string error() const { return headers.contains("grpc-message") ? headers.at("grpc-message") : ""; }
    std::string message() const { return body.size() < 5 ? "" : body.substr(5); }
  };

  explicit GrpcTestClient(int port) {
    fd_ = ConnectTo(port);
    EXPECT_GE(fd_, 0);
    const int on = 1;
    setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    timeval timeout{20, 0};
    setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
    nghttp2_session_callbacks* callbacks;
    nghttp2_session_callbacks_new(&callbacks);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, OnHeader);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, OnData);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, OnClose);
    nghttp2_session_client_new(&session_, callbacks, this);
    nghttp2_session_callbacks_del(callbacks);
    const nghttp2_settings_entry window{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 64 << 20};
    nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, &window, 1);
    nghttp2_session_set_local_window_size(session_, NGHTTP2_FLAG_NONE, 0, 64 << 20);
    Send();
  }

  ~GrpcTestClient() { Disconnect(); }
  GrpcTestClient(const GrpcTestClient&) = delete;

  int32_t Start(std::string_view path, std::string_view message, std::string_view timeout = {}) {
    Call call;
    const auto size = static_cast<uint32_t>(message.size());
    call.request = {'\0', static_cast<char>(size >> 24), static_cast<char>(size >> 16), static_cast<char>(size >> 8),
                    static_cast<char>(size)};
    call.request += message;
    std::vector<nghttp2_nv> headers;
    const auto add = [&](std::string_view name, std::string_view value) {
      headers.push_back({const_cast<uint8_t*>(reinterpret_cast<const uint8_t*>(name.data())),
                         const_cast<uint8_t*>(reinterpret_cast<const uint8_t*>(value.data())), name.size(),
                         value.size(), NGHTTP2_NV_FLAG_NONE});
    };
    add(":method", "POST");
    add(":scheme", "http");
    add(":path", path);
    add(":authority", "localhost");
    add("content-type", "application/grpc");
    add("te", "trailers");
    if (!timeout.empty()) {
      add("grpc-timeout", timeout);
    }
    nghttp2_data_provider body{};
    body.read_callback = OnRead;
    const int32_t id = nghttp2_submit_request(session_, nullptr, headers.data(), headers.size(), &body, nullptr);
    EXPECT_GT(id, 0);
    calls_[id] = std::move(call);
    Send();
    return id;
  }

  const Call& Wait(int32_t id) {
    while (!calls_[id].closed && Receive()) {
    }
    EXPECT_TRUE(calls_[id].closed) << "no answer";
    return calls_[id];
  }

  Call Run(std::string_view path, std::string_view message) { return Wait(Start(path, message)); }

  void Cancel(int32_t id) {
    nghttp2_submit_rst_stream(session_, NGHTTP2_FLAG_NONE, id, NGHTTP2_CANCEL);
    Send();
  }

  void Disconnect() {
    if (session_ != nullptr) {
      nghttp2_session_del(session_);
      session_ = nullptr;
      close(fd_);
    }
  }

 private:
  static GrpcTestClient* Self(void* user_data) { return static_cast<GrpcTestClient*>(user_data); }

  static ssize_t OnRead(nghttp2_session*, int32_t id, uint8_t* to, size_t size, uint32_t* flags, nghttp2_data_source*,
                        void* user_data) {
    Call& call = Self(user_data)->calls_[id];
    const size_t count = std::min(size, call.request.size() - call.sent);
    std::memcpy(to, call.request.data() + call.sent, count);
    call.sent += count;
    if (call.sent == call.request.size()) {
      *flags |= NGHTTP2_DATA_FLAG_EOF;
    }
    return static_cast<ssize_t>(count);
  }

  static int OnHeader(nghttp2_session*, const nghttp2_frame* frame, const uint8_t* name, size_t name_size,
                      const uint8_t* value, size_t value_size, uint8_t, void* user_data) {
    Self(user_data)->calls_[frame->hd.stream_id].headers[{reinterpret_cast<const char*>(name), name_size}] = {
        reinterpret_cast<const char*>(value), value_size};
    return 0;
  }

  static int OnData(nghttp2_session*, uint8_t, int32_t id, const uint8_t* data, size_t size, void* user_data) {
    Self(user_data)->calls_[id].body.append(reinterpret_cast<const char*>(data), size);
    return 0;
  }

  static int OnClose(nghttp2_session*, int32_t id, uint32_t, void* user_data) {
    Self(user_data)->calls_[id].closed = true;
    return 0;
  }

  void Send() {
    const uint8_t* data;
    for (ssize_t size; (size = nghttp2_session_mem_send(session_, &data)) > 0;) {
      if (!SendAll(fd_, {reinterpret_cast<const char*>(data), static_cast<size_t>(size)})) {
        return;
      }
    }
  }

  bool Receive() {
    uint8_t bytes[65536];
    const ssize_t size = recv(fd_, bytes, sizeof(bytes), 0);
    if (size <= 0 || nghttp2_session_mem_recv(session_, bytes, static_cast<size_t>(size)) < 0) {
      return false;
    }
    Send();
    return true;
  }

  int fd_;
  nghttp2_session* session_ = nullptr;
  std::map<int32_t, Call> calls_;
};

}  // namespace msserving
