// The ceiling for frontend_echo: the least that epoll and nghttp2 can be asked to do for a unary gRPC echo. It checks
// nothing, bounds nothing and trusts its client; it is for measuring only.
//   bare_nghttp2_echo [--port N]
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <nghttp2/nghttp2.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <memory>
#include <string>
#include <thread>
#include <vector>

namespace {

struct Stream {
  std::string body;
  size_t sent = 0;
};

struct Connection {
  int fd = -1;
  nghttp2_session* session = nullptr;
  std::string out;
  size_t out_sent = 0;
  bool dirty = false;
  bool wants_write = false;
};

std::vector<Stream*> idle_streams;
std::vector<Connection*> dirty;

template <size_t N, size_t V>
nghttp2_nv Header(const char (&name)[N], const char (&value)[V]) {
  return {reinterpret_cast<uint8_t*>(const_cast<char*>(name)), reinterpret_cast<uint8_t*>(const_cast<char*>(value)),
          N - 1, V - 1, NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE};
}

int OnBeginHeaders(nghttp2_session* session, const nghttp2_frame* frame, void*) {
  if (frame->headers.cat == NGHTTP2_HCAT_REQUEST) {
    Stream* stream;
    if (idle_streams.empty()) {
      stream = new Stream();
    } else {
      stream = idle_streams.back();
      idle_streams.pop_back();
    }
    nghttp2_session_set_stream_user_data(session, frame->hd.stream_id, stream);
  }
  return 0;
}

int OnData(nghttp2_session* session, uint8_t, int32_t id, const uint8_t* data, size_t size, void*) {
  static_cast<Stream*>(nghttp2_session_get_stream_user_data(session, id))
      ->body.append(reinterpret_cast<const char*>(data), size);
  return 0;
}

ssize_t ReadBody(nghttp2_session* session, int32_t id, uint8_t* to, size_t limit, uint32_t* flags,
                 nghttp2_data_source* source, void*) {
  auto* stream = static_cast<Stream*>(source->ptr);
  const size_t size = std::min(limit, stream->body.size() - stream->sent);
  std::memcpy(to, stream->body.data() + stream->sent, size);
  stream->sent += size;
  if (stream->sent == stream->body.size()) {
    *flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
    const nghttp2_nv trailer = Header("grpc-status", "0");
    nghttp2_submit_trailer(session, id, &trailer, 1);
  }
  return static_cast<ssize_t>(size);
}

int OnFrame(nghttp2_session* session, const nghttp2_frame* frame, void*) {
  if ((frame->hd.type != NGHTTP2_DATA && frame->hd.type != NGHTTP2_HEADERS) ||
      (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) == 0) {
    return 0;
  }
  nghttp2_data_provider provider;
  provider.source.ptr = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
  provider.read_callback = &ReadBody;
  const nghttp2_nv headers[] = {Header(":status", "200"), Header("content-type", "application/grpc")};
  nghttp2_submit_response(session, frame->hd.stream_id, headers, std::size(headers), &provider);
  return 0;
}

int OnStreamClose(nghttp2_session* session, int32_t id, uint32_t, void*) {
  if (auto* stream = static_cast<Stream*>(nghttp2_session_get_stream_user_data(session, id))) {
    stream->body.clear();
    stream->sent = 0;
    idle_streams.push_back(stream);
  }
  return 0;
}

void Delete(Connection* connection) {
  std::replace(dirty.begin(), dirty.end(), connection, static_cast<Connection*>(nullptr));
  nghttp2_session_del(connection->session);
  close(connection->fd);
  delete connection;
}

// False: the connection is gone.
bool Flush(int epoll, Connection* connection) {
  const uint8_t* bytes;
  ssize_t size;
  while ((size = nghttp2_session_mem_send(connection->session, &bytes)) > 0) {
    connection->out.append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(size));
  }
  while (connection->out_sent < connection->out.size()) {
    const ssize_t sent = send(connection->fd, connection->out.data() + connection->out_sent,
                              connection->out.size() - connection->out_sent, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN) {
      return false;
    }
    if (sent < 0) {
      break;
    }
    connection->out_sent += static_cast<size_t>(sent);
  }
  const bool pending = connection->out_sent < connection->out.size();
  if (!pending) {
    connection->out.clear();
    connection->out_sent = 0;
  }
  if (pending != connection->wants_write) {
    connection->wants_write = pending;
    epoll_event event{};
    event.events = EPOLLIN | (pending ? EPOLLOUT : 0u);
    event.data.ptr = connection;
    epoll_ctl(epoll, EPOLL_CTL_MOD, connection->fd, &event);
  }
  return true;
}

int Serve(int port) {
  const int listening = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  const int one = 1;
  setsockopt(listening, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (bind(listening, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0 || listen(listening, 4096) != 0) {
    std::perror("bind");
    return 1;
  }
  nghttp2_session_callbacks* callbacks;
  nghttp2_session_callbacks_new(&callbacks);
  nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, &OnBeginHeaders);
  nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, &OnData);
  nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, &OnFrame);
  nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, &OnStreamClose);
  nghttp2_option* options;
  nghttp2_option_new(&options);
  nghttp2_option_set_no_closed_streams(options, 1);

  const int epoll = epoll_create1(0);
  epoll_event event{};
  event.events = EPOLLIN;
  epoll_ctl(epoll, EPOLL_CTL_ADD, listening, &event);
  std::printf("ready on port %d\n", port);
  std::fflush(stdout);
  std::vector<uint8_t> scratch(128 << 10);
  epoll_event events[256];
  for (;;) {
    const int count = epoll_wait(epoll, events, 256, -1);
    for (int i = 0; i < count; ++i) {
      auto* connection = static_cast<Connection*>(events[i].data.ptr);
      if (connection == nullptr) {
        const int fd = accept4(listening, nullptr, nullptr, SOCK_NONBLOCK);
        if (fd < 0) {
          continue;
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        connection = new Connection();
        connection->fd = fd;
        nghttp2_session_server_new2(&connection->session, callbacks, connection, options);
        const nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, 1024},
                                                   {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 4 << 20}};
        nghttp2_submit_settings(connection->session, NGHTTP2_FLAG_NONE, settings, std::size(settings));
        nghttp2_session_set_local_window_size(connection->session, NGHTTP2_FLAG_NONE, 0, 16 << 20);
        event.data.ptr = connection;
        event.events = EPOLLIN;
        epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
      } else {
        const ssize_t got = recv(connection->fd, scratch.data(), scratch.size(), 0);
        if (got == 0 || (got < 0 && errno != EAGAIN) ||
            (got > 0 && nghttp2_session_mem_recv(connection->session, scratch.data(), static_cast<size_t>(got)) < 0)) {
          Delete(connection);
          continue;
        }
      }
      if (!connection->dirty) {
        connection->dirty = true;
        dirty.push_back(connection);
      }
    }
    for (Connection* connection : dirty) {
      if (connection != nullptr) {
        connection->dirty = false;
        if (!Flush(epoll, connection)) {
          Delete(connection);
        }
      }
    }
    dirty.clear();
  }
}

}  // namespace

int main(int argc, char** argv) {
  int port = 5501;
  for (int i = 1; i + 1 < argc; i += 2) {
    if (std::strcmp(argv[i], "--port") == 0) {
      port = std::atoi(argv[i + 1]);
    }
  }
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  // In a second thread, as in a server: system calls and malloc cost more in a process of several threads.
  int result = 0;
  std::thread([&] { result = Serve(port); }).join();
  return result;
}
