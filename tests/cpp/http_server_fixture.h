// An HttpServer on a thread of its own, with a service that says what it was asked.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "../support/http_client.h"
#include "../support/loop_thread.h"
#include "net/http_server.h"

namespace msserving::testing {

inline constexpr size_t kLarge = 8 << 20;

// "/large" answers with so many bytes, "/echo" answers at once, "/late" when the test says so, everything with
// "<method> <target>|<type>|<body>".
class TestService final : public HttpService {
 public:
  void OnRequest(HttpCall* call) override {
    ++requests;
    if (call->target() == "/late") {
      waiting.push_back(call);
      return;
    }
    Answer(call);
  }

  void OnCancelled(HttpCall* call) override {
    ++cancelled;
    std::erase(waiting, call);
  }

  std::string ErrorBody(int status, std::string_view reason) override {
    return "error " + std::to_string(status) + ": " + std::string(reason);
  }

  static void Answer(HttpCall* call) {
    OutgoingBody body;
    if (call->target() == "/large") {
      const std::string large(kLarge, 'l');
      body.encoded.Append(large.data(), large.size());
      call->Reply(200, "text/plain", std::move(body));
      return;
    }
    const std::string text =
        std::string(call->method()) + " " + std::string(call->target()) + "|" + std::string(call->content_type()) + "|";
    body.encoded.Append(text.data(), text.size());
    body.encoded.Append(call->body().data(), call->body().size());
    call->Reply(call->target() == "/extra" ? 405 : 200, "text/plain", std::move(body),
                call->target() == "/extra" ? "Allow: POST\r\n" : "");
  }

  // The latest first, so that order must be the server's doing.
  void AnswerAll() {
    while (!waiting.empty()) {
      HttpCall* call = waiting.back();
      waiting.pop_back();
      Answer(call);
    }
  }

  std::vector<HttpCall*> waiting;
  int requests = 0;
  int cancelled = 0;
};

class HttpServerTest : public ::testing::Test {
 protected:
  ~HttpServerTest() override {
    thread_.Do([&] {
      server_.reset();
      EXPECT_TRUE(service_.waiting.empty());
    });
  }

  void Start(HttpServerOptions options = {}) {
    UniqueFd socket = ListenAnywhere(&port_);
    thread_.Do([&] {
      server_ = std::make_unique<HttpServer>(&thread_.loop(), std::move(socket), options, &service_, nullptr);
    });
  }

  // What the loop's thread says, once it says what is hoped for or 10 s are over.
  template <class Function>
  bool Eventually(Function function) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    for (bool good = false;; std::this_thread::sleep_for(std::chrono::milliseconds(2))) {
      thread_.Do([&] { good = function(); });
      if (good || std::chrono::steady_clock::now() > end) {
        return good;
      }
    }
  }

  bool Waiting(size_t count) {
    return Eventually([&] { return service_.waiting.size() == count; });
  }

  LoopThread thread_;
  TestService service_;
  std::unique_ptr<HttpServer> server_;
  int port_ = 0;
};

}  // namespace msserving::testing
