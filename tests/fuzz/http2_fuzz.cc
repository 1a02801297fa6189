// Bytes of a client, over a real socket, to one HTTP/2 connection of the gRPC server. The first byte says how they
// arrive: bit 0, with the greeting already sent; bits 1 to 3, in pieces of how many bytes; bit 4, the clock runs; bit
// 5, the held calls are answered in the middle.
#include <fcntl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstdlib>
#include <set>
#include <string_view>

#include "net/http2_connection.h"

namespace msserving {
namespace {

// Answers /e at once, /s with slices, holds /h.
class FuzzService final : public GrpcService {
 public:
  bool HasMethod(std::string_view path) const override { return path == "/e" || path == "/s" || path == "/h"; }
  void OnCall(GrpcCall* call) override {
    if (call->path() == "/h") {
      held_.insert(call);
      return;
    }
    Answer(call);
  }
  void OnCancelled(GrpcCall* call) override {
    if (held_.erase(call) != 1) {
      std::abort();
    }
  }
  void AnswerHeld() {
    for (GrpcCall* call : std::exchange(held_, {})) {
      Answer(call);
    }
  }
  bool empty() const { return held_.empty(); }

 private:
  static void Answer(GrpcCall* call) {
    static const uint8_t kZeros[40'000] = {};
    OutgoingBody body;
    body.encoded.Append(call->message().data(), call->message().size());
    if (call->path() == "/s") {
      body.slices = {{0, kZeros, 100}, {body.encoded.size(), kZeros, sizeof(kZeros)}};
    }
    call->Reply(std::move(body));
  }
  std::set<GrpcCall*> held_;
};

GrpcServerOptions Options() {
  GrpcServerOptions options;
  options.max_receive_bytes = 1 << 20;
  options.max_send_bytes = 1 << 20;
  options.max_concurrent_streams = 8;
  options.idle_timeout_ns = options.incomplete_timeout_ns = options.slow_reader_timeout_ns = 10 * kNanosPerSecond;
  return options;
}

void RunOnce(EventLoop* loop) {
  loop->Post([loop] { loop->Stop(); });
  loop->Run();
}

void DiscardOutput(int fd) {
  uint8_t bytes[64 << 10];
  while (recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT) > 0) {
  }
}

constexpr std::string_view kGreeting("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", 33);

void Run(const uint8_t* data, size_t size) {
  if (size == 0) {
    return;
  }
  const uint8_t how = data[0];
  static constexpr size_t kPieces[] = {1, 3, 9, 17, 64, 1000, 16384, 1 << 20};
  const size_t piece = kPieces[(how >> 1) & 7];
  FakeClock clock;
  EventLoop loop(clock);
  FuzzService service;
  Http2Shared shared(&loop, Options(), &service);
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) != 0) {
    std::abort();
  }
  UniqueFd client(ends[0]);
  bool gone = false;
  auto* connection =
      new Http2Connection(&shared, UniqueFd(ends[1]), nullptr, &gone, [](void* flag, Http2Connection* closed) {
        *static_cast<bool*>(flag) = true;
        delete closed;
      });
  connection->Begin();
  if ((how & 1) != 0) {
    [[maybe_unused]] const ssize_t sent = send(client.get(), kGreeting.data(), kGreeting.size(), MSG_NOSIGNAL);
  }
  for (size_t at = 1; at < size && !gone; at += piece) {
    [[maybe_unused]] const ssize_t sent =
        send(client.get(), data + at, std::min(piece, size - at), MSG_NOSIGNAL | MSG_DONTWAIT);
    RunOnce(&loop);
    DiscardOutput(client.get());
    if ((how & 16) != 0) {
      clock.Advance(kNanosPerSecond);
    }
    if ((how & 32) != 0 && at > size / 2) {
      service.AnswerHeld();
    }
  }
  RunOnce(&loop);
  client.Reset();
  for (int i = 0; i < 4 && !gone; ++i) {
    RunOnce(&loop);
    clock.Advance(2 * kNanosPerSecond);
  }
  if (!gone || !service.empty() || shared.calls != 0 || shared.options.bytes_in_flight->used() != 0) {
    std::abort();  // a connection, a call or memory was lost
  }
}

}  // namespace
}  // namespace msserving

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  msserving::Run(data, size);
  return 0;
}
