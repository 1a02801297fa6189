// A GrpcServer on a thread of its own, with a service that a test can hold in its hand.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <future>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "../support/loop_thread.h"
#include "h2_test_client.h"
#include "net/grpc_server.h"
#include "net/tls.h"

namespace msserving::testing {

// /t/Stream: echoes every message; "fill" sends until nothing more is taken, then finishes; "fail" finishes with
// INTERNAL, "silent" is not answered.
class TestStreams final : public GrpcStreamService {
 public:
  void OnMessage(GrpcStream* stream, std::span<const uint8_t> bytes) override {
    ++messages;
    open.insert(stream);
    const std::string message(bytes.begin(), bytes.end());
    if (message == "fill") {
      const std::vector<uint8_t> large(100'000, 'f');
      while (stream->Send(large)) {
        ++filled;
      }
      End(stream, GrpcStatus::kResourceExhausted, "filled");
    } else if (message == "fail") {
      End(stream, GrpcStatus::kInternal, "as asked");
    } else if (message != "silent") {
      EXPECT_TRUE(stream->Send(bytes));
    }
  }
  void OnMessagesEnd(GrpcStream* stream) override { End(stream, GrpcStatus::kOk, ""); }
  void OnDrain(GrpcStream* stream) override { End(stream, GrpcStatus::kUnavailable, "drains"); }
  void OnCancelled(GrpcStream* stream) override {
    open.erase(stream);
    ++cancelled;
  }

  std::set<GrpcStream*> open;
  std::atomic<int> messages{0};
  std::atomic<int> filled{0};
  std::atomic<int> cancelled{0};

 private:
  void End(GrpcStream* stream, GrpcStatus status, std::string_view text) {
    open.erase(stream);
    stream->Finish(status, text);
  }
};

// Echo; Hold (until Release or ReleaseAll()); Release; Fail (with the message as its text); Slices (that many bytes
// of a slice between "ab" and "cd"); Refuse (as one of too many, and gathers input); Full (refused at its headers).
class TestService final : public GrpcService {
 public:
  bool HasMethod(std::string_view path) const override {
    return path == "/t/Echo" || path == "/t/Hold" || path == "/t/Release" || path == "/t/Fail" || path == "/t/Slices" ||
           path == "/t/Stream" || path == "/t/Refuse" || path == "/t/Full";
  }
  GrpcStreamService* Streaming(std::string_view path) override { return path == "/t/Stream" ? &streams : nullptr; }

  void OnHeaders(GrpcCall* call) override {
    if (call->path() == "/t/Full") {
      call->Fail(GrpcStatus::kResourceExhausted, "full");
    }
  }

  void OnCall(GrpcCall* call) override {
    ++calls;
    const std::string message(reinterpret_cast<const char*>(call->message().data()), call->message().size());
    if (call->path() == "/t/Hold") {
      deadline_left_ns = call->deadline_ns() == kNoDeadline ? -1 : call->deadline_ns() - call->loop().now_ns();
      holding_.insert(call);
      ++held;
    } else if (call->path() == "/t/Fail") {
      call->Fail(GrpcStatus::kInvalidArgument, message);
    } else if (call->path() == "/t/Refuse") {
      call->GatherInput();
      call->Fail(GrpcStatus::kResourceExhausted, "too many");
    } else if (call->path() == "/t/Slices") {
      ReplySlices(call, std::strtoull(message.c_str(), nullptr, 10));
    } else {
      if (call->path() == "/t/Release") {
        ReleaseAll();
      }
      Echo(call);
    }
  }

  void OnCancelled(GrpcCall* call) override {
    EXPECT_EQ(holding_.erase(call), 1u) << "cancelled, but not running";
    ++cancelled;
  }

  void ReleaseAll() {
    for (GrpcCall* call : std::exchange(holding_, {})) {
      Echo(call);
    }
  }

  TestStreams streams;
  std::atomic<int> calls{0};
  std::atomic<int> held{0};
  std::atomic<int> cancelled{0};
  std::atomic<int> keepers_gone{0};
  std::atomic<int64_t> deadline_left_ns{0};

 private:
  struct Keeper final : KeepAlive {
    explicit Keeper(std::atomic<int>* gone) : gone(gone) {}
    ~Keeper() override { ++*gone; }
    std::atomic<int>* gone;
    std::string bytes;
  };

  void Echo(GrpcCall* call) {
    OutgoingBody body;
    body.encoded = call->loop().buffers().Acquire(call->message().size());
    body.encoded.Append(call->message().data(), call->message().size());
    call->Reply(std::move(body));
  }

  void ReplySlices(GrpcCall* call, size_t size) {
    auto keeper = std::make_unique<Keeper>(&keepers_gone);
    keeper->bytes.assign(size, 's');
    OutgoingBody body;
    body.encoded.Append("abcd", 4);
    body.slices.push_back({2, reinterpret_cast<const uint8_t*>(keeper->bytes.data()), size});
    body.keep_alive = std::move(keeper);
    call->Reply(std::move(body));
  }

  std::set<GrpcCall*> holding_;
};

class GrpcServerTest : public ::testing::Test {
 protected:
  ~GrpcServerTest() override { DestroyServer(); }

  // Without a clock of the test's: the real one.
  void Serve(GrpcServerOptions options = {}, const FakeClock* fake = nullptr,
             std::shared_ptr<TlsContext> tls = nullptr) {
    loop_ = fake != nullptr ? std::make_unique<EventLoop>(*fake) : std::make_unique<EventLoop>();
    UniqueFd socket = ListenAnywhere(&port_);
    server = std::make_unique<GrpcServer>(loop_.get(), std::move(socket), options, &service, std::move(tls));
    thread_ = std::thread([this] { loop_->Run(); });
  }

  void DestroyServer() {
    if (thread_.joinable()) {
      OnLoop([this] { server.reset(); });
      loop_->Stop();
      thread_.join();
    }
  }

  int port() const { return port_; }

  // Runs there and waits for it.
  void OnLoop(std::function<void()> function) {
    std::promise<void> done;
    loop_->Post([&] {
      function();
      done.set_value();
    });
    done.get_future().wait();
  }

  void Advance(int64_t ns) {
    OnLoop([&] { clock.Advance(ns); });
    OnLoop([] {});  // a wake-up that sees the new time
  }

  size_t connections() {
    size_t count = 0;
    OnLoop([&] { count = server->connections(); });
    return count;
  }
  size_t calls() {
    size_t count = 0;
    OnLoop([&] { count = server->calls(); });
    return count;
  }

  static bool Eventually(const std::function<bool()>& done) {
    for (int i = 0; i < 2000; ++i) {
      if (done()) {
        return true;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return false;
  }

  FakeClock clock;
  TestService service;
  std::unique_ptr<GrpcServer> server;

 private:
  std::unique_ptr<EventLoop> loop_;
  std::thread thread_;
  int port_ = 0;
};

inline Headers With(Headers headers, const std::string& name, const std::string& value) {
  headers.emplace_back(name, value);
  return headers;
}

inline const std::string kEcho = "/t/Echo";

}  // namespace msserving::testing
