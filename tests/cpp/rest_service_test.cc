#include "protocol/rest_service.h"

#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "../support/fake_dispatcher.h"
#include "../support/http_client.h"
#include "../support/loop_thread.h"

namespace msserving {
namespace {

constexpr const char* kBody = R"({"instances":[{"x1":[1.5,2.5],"x2":1},{"x1":[3.5,4.5],"x2":2}]})";
constexpr const char* kTarget = "/model/add/version/2:sum";

class RestServiceTest : public testing::Test {
 protected:
  RestServiceTest() {
    dispatcher_.AddMethod("add", {"sum", {"x1", "x2"}, {"z", "y"}});
    UniqueFd socket = ListenAnywhere(&port_);
    HttpServerOptions options;
    options.max_body_bytes = 1 << 20;
    thread_.Do([&] {
      service_ = std::make_unique<RestService>(&dispatcher_, &health_);
      server_ = std::make_unique<HttpServer>(&thread_.loop(), std::move(socket), options, service_.get(), nullptr);
    });
    client_ = std::make_unique<HttpClient>(port_);
  }
  ~RestServiceTest() override {
    thread_.Do([&] {
      server_.reset();
      service_.reset();
    });
  }

  void ExpectError(const std::string& request, int status, std::string_view token) {
    const HttpReply reply = client_->Call(request);
    EXPECT_EQ(reply.status, status) << request.substr(0, 200);
    EXPECT_EQ(reply.headers.at("Content-Type"), "application/json");
    EXPECT_EQ(reply.body.find("{\"error_msg\":\""), 0U) << reply.body;
    EXPECT_NE(reply.body.find(token), std::string::npos) << reply.body;
  }

  void Submit(std::string_view body = kBody) {
    client_->Send(HttpClient::Post(kTarget, body));
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    for (bool there = false; !there && std::chrono::steady_clock::now() < end;) {
      thread_.Do([&] { there = !dispatcher_.pending.empty(); });
    }
  }

  HttpReply Answer(const std::vector<InstanceResult>& results) {
    thread_.Do([&] {
      if (!dispatcher_.pending.empty()) {
        dispatcher_.Answer(results);
      }
    });
    return client_->Read();
  }

  LoopThread thread_;
  FakeDispatcher dispatcher_;
  FakeHealth health_;
  std::unique_ptr<RestService> service_;
  std::unique_ptr<HttpServer> server_;
  std::unique_ptr<HttpClient> client_;
  int port_ = 0;
};

std::vector<TensorView> Outputs(const float* z, const int32_t* y) {
  std::vector<TensorView> outputs(2);
  outputs[0].data = reinterpret_cast<const uint8_t*>(z);
  outputs[0].bytes = 4;
  outputs[0].dtype = DataType::kFloat32;
  outputs[1].data = reinterpret_cast<const uint8_t*>(y);
  outputs[1].bytes = 4;
  outputs[1].dtype = DataType::kInt32;
  return outputs;
}

TEST_F(RestServiceTest, ARequestReachesTheDispatcherAndItsReplyTheClient) {
  const float z = 4;
  const int32_t y = 7;
  for (int round = 0; round < 3; ++round) {
    Submit();
    thread_.Do([&] {
      ASSERT_EQ(dispatcher_.pending.size(), 1U);
      const FakeDispatcher::Request& request = dispatcher_.pending.begin()->second;
      EXPECT_EQ(dispatcher_.asked_version, 2U);
      EXPECT_EQ(request.servable, "add");
      EXPECT_EQ(request.method, "sum");
      EXPECT_EQ(request.instances, 2U);
      EXPECT_EQ(request.deadline_ns, kNoDeadline);
      ASSERT_EQ(request.tensors.size(), 4U);
      EXPECT_EQ(request.tensors[2].bytes, std::string("\x00\x00\x60\x40\x00\x00\x90\x40", 8));
      EXPECT_EQ(request.tensors[3].bytes, std::string("\x02\x00\x00\x00", 4));
    });
    const std::vector<TensorView> outputs = Outputs(&z, &y);
    const HttpReply reply = Answer({{ErrorKind::kOk, {}, outputs}, {ErrorKind::kOk, {}, outputs}});
    EXPECT_EQ(reply.status, 200);
    EXPECT_EQ(reply.headers.at("Content-Type"), "application/json");
    EXPECT_EQ(reply.body, R"({"instances":[{"y":7,"z":4.0},{"y":7,"z":4.0}]})");
  }
  thread_.Do([&] { EXPECT_EQ(dispatcher_.released, 3); });
}

TEST_F(RestServiceTest, SomeFailedInstancesAreStill200) {
  const float z = 4;
  const int32_t y = 7;
  Submit();
  const HttpReply reply =
      Answer({{ErrorKind::kStageFailed, "Preprocess Failed", {}}, {ErrorKind::kOk, {}, Outputs(&z, &y)}});
  EXPECT_EQ(reply.status, 200);
  EXPECT_EQ(reply.body, R"({"instances":[{"error_msg":"Preprocess Failed"},{"y":7,"z":4.0}]})");
}

// The whole table: what fails all instances alike is the request's failure, under its kind's status.
TEST_F(RestServiceTest, WholeFailuresHaveTheStatusOfTheirKind) {
  for (int kind = 1; kind < static_cast<int>(ErrorKind::kCount); ++kind) {
    Submit();
    const InstanceResult failed{static_cast<ErrorKind>(kind), "why", {}};
    const HttpReply reply = Answer({failed, failed});
    EXPECT_EQ(reply.status, TraitsOf(static_cast<ErrorKind>(kind)).http_status) << kind;
    EXPECT_GE(reply.status, 400);
    EXPECT_EQ(reply.body, R"({"error_msg":"why"})");
  }
}

TEST_F(RestServiceTest, OtherVerbsAre405WhateverElseIsWrong) {
  for (const char* verb : {"GET", "PUT", "DELETE", "PATCH"}) {
    for (const char* target : {kTarget, "/nowhere"}) {
      const HttpReply reply = client_->Call(std::string(verb) + " " + target + " HTTP/1.1\r\nHost: h\r\n\r\n");
      EXPECT_EQ(reply.status, 405);
      EXPECT_EQ(reply.headers.at("Allow"), "POST");
      EXPECT_NE(reply.body.find("POST"), std::string::npos);
    }
  }
  EXPECT_EQ(client_->Call(std::string("HEAD ") + kTarget + " HTTP/1.1\r\n\r\n", true).status, 405);
}

TEST_F(RestServiceTest, TheBodyComesBeforeTheUrl) {
  ExpectError(HttpClient::Post("/nowhere", ""), 400, "http message is empty");
  ExpectError(HttpClient::Post("/nowhere", "{"), 400, "not valid JSON");
  ExpectError(HttpClient::Post("/model/unknown:sum", "{\"a\":nul}"), 400, "not valid JSON");
  ExpectError(HttpClient::Post("/nowhere", "{}"), 404, "unexpected 'nowhere'");
}

TEST_F(RestServiceTest, TheUrlComesBeforeTheContent) {
  const std::string content = R"({"instances":null})";
  ExpectError(HttpClient::Post("/model/unknown:sum", content), 404, "servable is not available");
  ExpectError(HttpClient::Post("/model/add:unknown", content), 404, "method is not available");
  ExpectError(HttpClient::Post("/model/add/version/x:sum", content), 400, "is invalid");
  ExpectError(HttpClient::Post("/model/add", content), 400, "method is missing");
  ExpectError(HttpClient::Post("/model/add:sum", content), 400, "Parser request failed, instances: ");
  ExpectError(HttpClient::Post("/model/add:sum", R"({"instances":{"x1":1}})"), 400,
              "Cannot find input x2 in instance input");
}

TEST_F(RestServiceTest, TooLargeIsTheServersAnswerInTheSameForm) {
  ExpectError("POST /model/add:sum HTTP/1.1\r\nContent-Length: 1048577\r\n\r\n", 413,
              "http message is bigger than 1048576");
}

TEST_F(RestServiceTest, OverloadIs429) {
  thread_.Do([&] {
    dispatcher_.submit_refusal = {ErrorKind::kOverloaded, "enqueued requests count exceeds the limit 1"};
  });
  const HttpReply reply = client_->Call(HttpClient::Post(kTarget, kBody));
  EXPECT_EQ(reply.status, 429);
  EXPECT_EQ(reply.headers.at("Retry-After"), "1");
  EXPECT_EQ(reply.body, R"({"error_msg":"enqueued requests count exceeds the limit 1"})");
  thread_.Do([&] { dispatcher_.find_refusal = dispatcher_.submit_refusal; });
  ExpectError(HttpClient::Post(kTarget, "no json"), 429, "exceeds the limit");
}

TEST_F(RestServiceTest, WhatIsNotServedYetMayComeLater) {
  const std::string unknown = HttpClient::Post("/model/unknown:sum", kBody);
  ExpectError(unknown, 404, "servable is not available");
  EXPECT_FALSE(client_->Call(unknown).headers.contains("Retry-After"));
  thread_.Do([&] { health_.is_ready = false; });
  ExpectError(unknown, 503, "servable is not available");
  EXPECT_EQ(client_->Call(unknown).headers.at("Retry-After"), "1");
}

TEST_F(RestServiceTest, AWorkerThatIsGoneIsWorthAnotherTry) {
  Submit();
  const HttpReply reply =
      Answer({{ErrorKind::kWorkerUnavailable, "gone", {}}, {ErrorKind::kWorkerUnavailable, "gone", {}}});
  EXPECT_EQ(reply.status, 503);
  EXPECT_EQ(reply.headers.at("Retry-After"), "1");
}

TEST_F(RestServiceTest, AClientThatGoesAwayCancelsItsRequest) {
  Submit();
  client_->Abort();
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  int cancelled = 0;
  while (cancelled == 0 && std::chrono::steady_clock::now() < end) {
    thread_.Do([&] { cancelled = dispatcher_.cancelled; });
  }
  EXPECT_EQ(cancelled, 1);
  client_ = std::make_unique<HttpClient>(port_);
  Submit();  // the same memory serves the next one
  EXPECT_EQ(Answer({{ErrorKind::kInternal, "e", {}}}).status, 500);
}

TEST_F(RestServiceTest, HealthChecks) {
  const std::string ready = "GET /health/ready HTTP/1.1\r\n\r\n";
  const std::string live = "GET /health/live?x HTTP/1.1\r\n\r\n";
  EXPECT_EQ(client_->Call(ready).status, 200);
  EXPECT_EQ(client_->Call(live).body, R"({"status":"ok"})");
  thread_.Do([&] { health_.is_ready = false; });
  EXPECT_EQ(client_->Call(ready).status, 503);
  EXPECT_EQ(client_->Call(live).status, 200);
  thread_.Do([&] { health_.is_live = false; });
  EXPECT_EQ(client_->Call(live).status, 503);
  EXPECT_EQ(client_->Call("HEAD /health/live HTTP/1.1\r\n\r\n", true).status, 503);
}

}  // namespace
}  // namespace msserving
