// A gRPC client for tests that lets one do what a proper client would not: half requests, broken frames, no reading.
#pragma once

#include <gtest/gtest.h>
#include <nghttp2/nghttp2.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../support/loopback.h"

namespace msserving::testing {

using Headers = std::vector<std::pair<std::string, std::string>>;

inline std::string Frame(std::string_view message, uint8_t flag = 0) {
  const auto size = static_cast<uint32_t>(message.size());
  std::string framed = {static_cast<char>(flag), static_cast<char>(size >> 24), static_cast<char>(size >> 16),
                        static_cast<char>(size >> 8), static_cast<char>(size)};
  return framed.append(message);
}

struct Response {
  std::map<std::string, std::string> headers;  // trailers too
  std::string data;
  bool closed = false;
  uint32_t error_code = 0;

  std::string message() const { return data.size() < 5 ? std::string() : data.substr(5); }
  std::string header(const std::string& name) const {
    const auto found = headers.find(name);
    return found == headers.end() ? std::string() : found->second;
  }
  std::string status() const { return header("grpc-status"); }
};

inline bool Connects(int port) {
  const int fd = ConnectTo(port);
  close(fd);
  return fd >= 0;
}

// One connection; blocking, with time-outs of ten seconds.
class H2Client {
 public:
  explicit H2Client(int port, uint32_t window = 1 << 30, bool greet = true) {
    fd_ = ConnectTo(port);
    EXPECT_GE(fd_, 0);
    nghttp2_session_callbacks* callbacks;
    nghttp2_session_callbacks_new(&callbacks);
    nghttp2_session_callbacks_set_on_header_callback(
        callbacks, [](nghttp2_session*, const nghttp2_frame* frame, const uint8_t* name, size_t name_size,
                      const uint8_t* value, size_t value_size, uint8_t, void* self) {
          static_cast<H2Client*>(self)
              ->responses_[frame->hd.stream_id]
              .headers[std::string(reinterpret_cast<const char*>(name), name_size)] =
              std::string(reinterpret_cast<const char*>(value), value_size);
          return 0;
        });
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(
        callbacks, [](nghttp2_session*, uint8_t, int32_t id, const uint8_t* data, size_t size, void* self) {
          static_cast<H2Client*>(self)->responses_[id].data.append(reinterpret_cast<const char*>(data), size);
          return 0;
        });
    nghttp2_session_callbacks_set_on_stream_close_callback(
        callbacks, [](nghttp2_session*, int32_t id, uint32_t error_code, void* self) {
          Response& response = static_cast<H2Client*>(self)->responses_[id];
          response.closed = true;
          response.error_code = error_code;
          return 0;
        });
    nghttp2_session_callbacks_set_on_frame_recv_callback(
        callbacks, [](nghttp2_session*, const nghttp2_frame* frame, void* self) {
          auto* client = static_cast<H2Client*>(self);
          if (frame->hd.type == NGHTTP2_GOAWAY) {
            ++client->goaways;
            client->goaway_error = frame->goaway.error_code;
          } else if (frame->hd.type == NGHTTP2_PING && (frame->hd.flags & NGHTTP2_FLAG_ACK) != 0) {
            ++client->ping_acks;
          } else if (frame->hd.type == NGHTTP2_SETTINGS && (frame->hd.flags & NGHTTP2_FLAG_ACK) == 0) {
            client->greeted = true;
          }
          return 0;
        });
    nghttp2_option* options;
    nghttp2_option_new(&options);
    nghttp2_option_set_peer_max_concurrent_streams(options, 1 << 20);
    nghttp2_session_client_new2(&session_, callbacks, this, options);
    nghttp2_option_del(options);
    nghttp2_session_callbacks_del(callbacks);
    if (greet) {
      const nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, window}};
      nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, settings, 1);
      nghttp2_session_set_local_window_size(session_, NGHTTP2_FLAG_NONE, 0, 1 << 30);
      Send();
    }
  }
  H2Client(const H2Client&) = delete;
  ~H2Client() {
    nghttp2_session_del(session_);
    close(fd_);
  }

  int fd() const { return fd_; }
  nghttp2_session* session() { return session_; }
  Response& response(int32_t id) { return responses_[id]; }

  static Headers Grpc(const std::string& path) {
    return {{":method", "POST"},    {":scheme", "http"}, {":path", path},
            {":authority", "test"}, {"te", "trailers"},  {"content-type", "application/grpc"}};
  }

  // Starts a request with this body; `end` false leaves it open.
  int32_t Start(const Headers& headers, std::string body, bool end = true) {
    std::vector<nghttp2_nv> entries;
    for (const auto& [name, value] : headers) {
      entries.push_back({reinterpret_cast<uint8_t*>(const_cast<char*>(name.data())),
                         reinterpret_cast<uint8_t*>(const_cast<char*>(value.data())), name.size(), value.size(),
                         NGHTTP2_NV_FLAG_NONE});
    }
    auto upload = std::make_unique<Upload>(Upload{std::move(body), 0, end});
    nghttp2_data_provider provider;
    provider.source.ptr = upload.get();
    provider.read_callback = [](nghttp2_session*, int32_t, uint8_t* to, size_t limit, uint32_t* flags,
                                nghttp2_data_source* source, void*) -> ssize_t {
      auto* from = static_cast<Upload*>(source->ptr);
      const size_t size = std::min(limit, from->body.size() - from->sent);
      if (size == 0 && !from->end) {
        return NGHTTP2_ERR_DEFERRED;
      }
      std::memcpy(to, from->body.data() + from->sent, size);
      from->sent += size;
      if (from->sent == from->body.size() && from->end) {
        *flags |= NGHTTP2_DATA_FLAG_EOF;
      }
      return static_cast<ssize_t>(size);
    };
    const int32_t id = nghttp2_submit_request(session_, nullptr, entries.data(), entries.size(), &provider, nullptr);
    uploads_[id] = std::move(upload);
    Send();
    return id;
  }

  void Continue(int32_t id, std::string_view more, bool end) {
    uploads_[id]->body.append(more);
    uploads_[id]->end = end;
    nghttp2_session_resume_data(session_, id);
    Send();
  }

  void Cancel(int32_t id) {
    nghttp2_submit_rst_stream(session_, NGHTTP2_FLAG_NONE, id, NGHTTP2_CANCEL);
    Send();
  }

  // Runs the connection until `done`. False: not in time, or the connection has ended. Looks once even without time.
  bool RunUntil(const std::function<bool()>& done, int timeout_ms = 120'000) {
    const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(timeout_ms);
    for (bool last = false; !done(); last = std::chrono::steady_clock::now() >= until) {
      if (ended || last) {
        return false;
      }
      Send();
      pollfd event{fd_, static_cast<short>(POLLIN | (pending_.empty() ? 0 : POLLOUT)), 0};
      if (poll(&event, 1, std::min(timeout_ms, 20)) > 0 && (event.revents & (POLLIN | POLLHUP | POLLERR)) != 0) {
        Receive();
      }
    }
    return true;
  }

  Response& Wait(int32_t id) {
    EXPECT_TRUE(RunUntil([&] { return responses_[id].closed; })) << "stream " << id << " never closed";
    return responses_[id];
  }

  Response& Call(const Headers& headers, std::string body) { return Wait(Start(headers, std::move(body))); }
  Response& Call(const std::string& path, std::string_view message) { return Call(Grpc(path), Frame(message)); }

  // What the session wants to send, as far as the socket takes it.
  void Send() {
    const uint8_t* bytes;
    ssize_t size;
    while (pending_.size() < (1 << 20) && (size = nghttp2_session_mem_send(session_, &bytes)) > 0) {
      pending_.append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(size));
    }
    while (!pending_.empty()) {
      const ssize_t sent = send(fd_, pending_.data(), pending_.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
      if (sent <= 0) {
        return;
      }
      pending_.erase(0, static_cast<size_t>(sent));
    }
  }

  // Past nghttp2. False: the server has hung up.
  bool SendRaw(std::string_view bytes) { return SendAll(fd_, bytes); }

  bool ended = false;
  bool greeted = false;
  int goaways = 0;
  int ping_acks = 0;
  uint32_t goaway_error = 0;

 private:
  struct Upload {
    std::string body;
    size_t sent;
    bool end;
  };

  void Receive() {
    std::vector<uint8_t> bytes(256 << 10);
    const ssize_t got = recv(fd_, bytes.data(), bytes.size(), MSG_DONTWAIT);
    const bool closed = got == 0 || (got < 0 && errno != EAGAIN);
    if (closed || (got > 0 && nghttp2_session_mem_recv(session_, bytes.data(), static_cast<size_t>(got)) < 0)) {
      ended = true;
    }
  }

  int fd_ = -1;
  nghttp2_session* session_ = nullptr;
  std::string pending_;
  std::map<int32_t, Response> responses_;
  std::map<int32_t, std::unique_ptr<Upload>> uploads_;
};

// A frame as it is on the wire.
inline std::string RawFrame(uint8_t type, uint8_t flags, uint32_t stream, std::string_view payload) {
  const auto size = static_cast<uint32_t>(payload.size());
  std::string frame = {static_cast<char>(size >> 16),   static_cast<char>(size >> 8),   static_cast<char>(size),
                       static_cast<char>(type),         static_cast<char>(flags),       static_cast<char>(stream >> 24),
                       static_cast<char>(stream >> 16), static_cast<char>(stream >> 8), static_cast<char>(stream)};
  return frame.append(payload);
}

inline constexpr std::string_view kMagic = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

}  // namespace msserving::testing
