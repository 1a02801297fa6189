#include "protocol/grpc_predict_service.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "../support/loop_thread.h"
#include "grpc_test_client.h"
#include "protocol/predict_client_codec.h"
#include "wire_builder.h"

namespace msserving {
namespace {

constexpr uint64_t kUint8 = 3;
constexpr std::string_view kPredict = GrpcPredictService::kPredictPath;
constexpr std::string_view kHealth = HealthService::kCheckPath;

// Memory of a reply that knows whether it was released.
class CountedMemory final : public ReplyMemory {
 public:
  explicit CountedMemory(int* released) : released_(released) {}
  ~CountedMemory() = default;

  void Release() override {
    ++*released_;
    delete this;
  }

 private:
  int* released_;
};

// Knows servable "s" with method "m" (input x, output y). Requests stay pending until the test answers them.
class FakeDispatcher final : public Dispatcher {
 public:
  struct Request {
    std::vector<std::string> inputs;
    int64_t deadline_ns;
    ReplySink* sink;
  };

  Status Find(std::string_view servable, uint64_t version, std::string_view method, int64_t,
              MethodTarget* target) override {
    if (servable != "s") {
      return {ErrorKind::kServableUnavailable, "servable is not available"};
    }
    asked_version = version;
    if (method != "m") {
      return {ErrorKind::kMethodUnavailable, "method is not available"};
    }
    signature = std::make_unique<MethodSignature>(MethodSignature{"m", {"x"}, {"y"}});
    *target = {signature.get(), this, 0};
    return Status::Ok();
  }

  Status Submit(const MethodTarget&, const RequestInstances& instances, int64_t deadline_ns, ReplySink* sink,
                RequestTicket* ticket) override {
    signature.reset();  // as if the servable had been replaced right after
    if (!refusal.ok()) {
      return refusal;
    }
    Request request{{}, deadline_ns, sink};
    for (const TensorView& view : instances.tensors) {
      request.inputs.emplace_back(reinterpret_cast<const char*>(view.data), view.bytes);
    }
    *ticket = ++last_ticket;
    pending[*ticket] = std::move(request);
    return Status::Ok();
  }

  Status Full() override { return full; }
  bool long_queue() const override { return queue_is_long; }

  void Cancel(RequestTicket ticket) override {
    cancelled.push_back(ticket);
    pending.erase(ticket);
  }

  std::unique_ptr<MethodSignature> signature;
  Status full;
  Status refusal;
  bool queue_is_long = false;
  uint64_t asked_version = 0;
  RequestTicket last_ticket = 0;
  std::map<RequestTicket, Request> pending;
  std::vector<RequestTicket> cancelled;
};

class FakeHealth final : public HealthSource {
 public:
  bool live() override { return true; }
  bool ready() override { return is_ready; }
  ServableHealth servable(std::string_view, uint64_t) override { return ServableHealth::kUnknown; }
  bool is_ready = true;
};

// A server on its own thread; what belongs to the loop is only touched there, through OnLoop().
class GrpcPredictServiceTest : public testing::Test {
 protected:
  GrpcPredictServiceTest() {
    UniqueFd socket = ListenAnywhere(&port_);
    OnLoop([&] {
      server_ =
          std::make_unique<GrpcServer>(&thread_.loop(), std::move(socket), GrpcServerOptions{}, &service_, nullptr);
    });
  }

  ~GrpcPredictServiceTest() override {
    OnLoop([this] {
      server_.reset();
      EXPECT_EQ(service_.calls_in_flight(), 0u);
    });
  }

  void OnLoop(const std::function<void()>& function) { thread_.Do(function); }

  // True as soon as the condition holds on the loop.
  bool Eventually(const std::function<bool()>& condition) {
    for (int i = 0; i < 2000; ++i) {
      bool holds = false;
      OnLoop([&] { holds = condition(); });
      if (holds) {
        return true;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return false;
  }

  RequestTicket AwaitRequest() {
    EXPECT_TRUE(Eventually([this] { return !dispatcher_.pending.empty(); }));
    RequestTicket ticket = 0;
    OnLoop([&] { ticket = dispatcher_.pending.empty() ? 0 : dispatcher_.pending.begin()->first; });
    return ticket;
  }

  // Answers a pending request. How often the memory was released when OnReply() returned is left in released_at_once_.
  void Answer(RequestTicket ticket, std::span<const InstanceResult> results) {
    OnLoop([&] {
      const auto request = dispatcher_.pending.extract(ticket);
      ASSERT_FALSE(request.empty());
      const int before = released_;
      request.mapped().sink->OnReply({results, ReplyMemoryPtr(new CountedMemory(&released_))});
      released_at_once_ = released_ - before;
    });
  }

  static std::string OneRequest(std::string_view content = "abc", uint64_t version = 0) {
    const Message tensor = Tensor({static_cast<int64_t>(content.size())}, kUint8, content);
    return Request(Spec("s", "m", version), {Instance({Item("x", tensor)})}).text();
  }

  // The error of a reply that has nothing else; "code text".
  static std::string WholeError(const GrpcTestClient::Call& call) {
    EXPECT_EQ(call.status(), "0");
    ParsedReply reply;
    const std::string message = call.message();
    EXPECT_TRUE(ParseReply(BytesOf(message), &reply).ok());
    EXPECT_TRUE(reply.instances.empty());
    EXPECT_EQ(reply.errors.size(), 1u);
    return reply.errors.empty() ? ""
                                : std::to_string(reply.errors[0].code) + " " + std::string(reply.errors[0].message);
  }

  static TensorView Output(std::string_view content) {
    TensorView view;
    view.data = reinterpret_cast<const uint8_t*>(content.data());
    view.bytes = content.size();
    view.dtype = DataType::kUint8;
    view.rank = 1;
    view.dims[0] = static_cast<int64_t>(content.size());
    return view;
  }

  FakeDispatcher dispatcher_;
  FakeHealth health_;
  GrpcPredictService service_{&dispatcher_, &health_};
  LoopThread thread_;
  std::unique_ptr<GrpcServer> server_;
  int port_ = 0;
  int released_ = 0;
  int released_at_once_ = 0;
};

TEST_F(GrpcPredictServiceTest, RequestReachesTheDispatcherAndItsReplyTheClient) {
  GrpcTestClient client(port_);
  const int32_t call = client.Start(kPredict, OneRequest("abc", 7));
  const RequestTicket ticket = AwaitRequest();
  OnLoop([&] {
    EXPECT_EQ(dispatcher_.asked_version, 7u);
    EXPECT_EQ(dispatcher_.pending.at(ticket).inputs, std::vector<std::string>{"abc"});
    EXPECT_EQ(dispatcher_.pending.at(ticket).deadline_ns, kNoDeadline);
    EXPECT_EQ(service_.calls_in_flight(), 1u);
  });
  const TensorView y = Output("xyz");
  const InstanceResult result{ErrorKind::kOk, {}, {&y, 1}};
  Answer(ticket, {&result, 1});
  EXPECT_EQ(released_at_once_, 1);
  const GrpcTestClient::Call& answer = client.Wait(call);
  EXPECT_EQ(answer.status(), "0");
  EXPECT_EQ(answer.message(),
            Message().Sub(1, Spec("s", "m", 7)).Sub(3, Instance({Item("y", Tensor({3}, kUint8, "xyz"))})).text());
}

TEST_F(GrpcPredictServiceTest, DeadlinePassesThrough) {
  GrpcTestClient client(port_);
  const int64_t before = RealClock().NowNs();
  const int32_t call = client.Start(kPredict, OneRequest(), "50S");
  const RequestTicket ticket = AwaitRequest();
  OnLoop([&] {
    EXPECT_GE(dispatcher_.pending.at(ticket).deadline_ns, before + 49 * kNanosPerSecond);
    EXPECT_LE(dispatcher_.pending.at(ticket).deadline_ns, RealClock().NowNs() + 50 * kNanosPerSecond);
  });
  const InstanceResult result{ErrorKind::kStageFailed, "Preprocess Failed", {}};
  Answer(ticket, {&result, 1});
  EXPECT_EQ(WholeError(client.Wait(call)), "2 Preprocess Failed");
}

TEST_F(GrpcPredictServiceTest, ApplicationErrorsTravelInTheReply) {
  GrpcTestClient client(port_);
  EXPECT_EQ(WholeError(client.Run(kPredict, Request(Spec("other", "m"), {}).text())), "5 servable is not available");
  EXPECT_EQ(WholeError(client.Run(kPredict, Request(Spec("s", "other"), {}).text())), "2 method is not available");
  EXPECT_EQ(client.Run(kPredict, Request(Spec("s", "other"), {}).text()).headers.at("x-request-id").size(), 16u);
  EXPECT_EQ(WholeError(client.Run(kPredict, Request(Spec("s", "m"), {}).text())), "2 The request has no instances");
  EXPECT_EQ(WholeError(client.Run(kPredict, Request(Spec("s", "m"), {Instance({})}).text())),
            "2 Cannot find input x in instance input, instance 0");
  EXPECT_EQ(WholeError(client.Run(kPredict, "\xFF\xFF")), "2 The request is not a well-formed PredictRequest message");
  EXPECT_EQ(WholeError(client.Run(kPredict, "")), "5 servable is not available");
}

TEST_F(GrpcPredictServiceTest, ErrorsEchoTheSpec) {
  GrpcTestClient client(port_);
  const Message spec = Spec("other", "m", 3);
  const GrpcTestClient::Call call = client.Run(kPredict, Request(spec, {}).text());
  EXPECT_EQ(call.message(),
            Message().Sub(1, spec).Sub(4, Message().Number(1, 5).Bytes(2, "servable is not available")).text());
}

TEST_F(GrpcPredictServiceTest, OverloadIsAStatusOfTheCall) {
  OnLoop([&] { dispatcher_.refusal = {ErrorKind::kOverloaded, "enqueued requests count exceeds the limit 10000"}; });
  GrpcTestClient client(port_);
  const GrpcTestClient::Call call = client.Run(kPredict, OneRequest());
  EXPECT_EQ(call.status(), "8");
  EXPECT_EQ(call.error(), "enqueued requests count exceeds the limit 10000");
  EXPECT_EQ(call.body, "");
  OnLoop([&] { EXPECT_EQ(service_.calls_in_flight(), 0u); });
}

TEST_F(GrpcPredictServiceTest, AFullDispatcherIsAskedBeforeTheMessageIsRead) {
  OnLoop([&] { dispatcher_.full = {ErrorKind::kOverloaded, "enqueued requests count exceeds the limit 10000"}; });
  GrpcTestClient client(port_);
  const GrpcTestClient::Call call = client.Run(kPredict, "no message of this service");
  EXPECT_EQ(call.status(), "8");
  EXPECT_EQ(call.error(), "enqueued requests count exceeds the limit 10000");
  EXPECT_EQ(client.Run(kHealth, "").status(), "0") << "health is no matter of requests that wait";
}

TEST_F(GrpcPredictServiceTest, RefusedBehindALongQueue_AllThatComesIsStillAnswered) {
  GrpcTestClient client(port_);
  for (int round = 0; round < 5; ++round) {
    OnLoop([&] {
      dispatcher_.queue_is_long = round % 2 == 0;
      dispatcher_.refusal = {ErrorKind::kOverloaded, "too long"};
    });
    EXPECT_EQ(client.Run(kPredict, OneRequest()).status(), "8");
    OnLoop([&] { dispatcher_.refusal = Status::Ok(); });
    EXPECT_EQ(client.Run(kHealth, "").status(), "0");
  }
}

TEST_F(GrpcPredictServiceTest, SpecInPiecesIsKeptUntilTheReply) {
  GrpcTestClient client(port_);
  const std::string long_note(10'000, 'n');  // an unknown field: echoed as well
  const Message in_pieces = Message()
                                .Sub(1, Message().Bytes(1, "s"))
                                .Sub(2, Instance({Item("x", Tensor({3}, kUint8, "abc"))}))
                                .Sub(1, Message().Bytes(2, "m").Bytes(99, long_note));
  const int32_t call = client.Start(kPredict, in_pieces.text());
  const RequestTicket ticket = AwaitRequest();
  EXPECT_EQ(WholeError(client.Run(kPredict, Request(Spec("other", "m"), {}).text())), "5 servable is not available");
  const InstanceResult result{ErrorKind::kInternal, "broken", {}};
  Answer(ticket, {&result, 1});
  const GrpcTestClient::Call& answer = client.Wait(call);
  EXPECT_EQ(answer.message(), Message()
                                  .Sub(1, Message().Bytes(1, "s").Bytes(2, "m").Bytes(99, long_note))
                                  .Sub(4, Message().Number(1, 3).Bytes(2, "broken"))
                                  .text());
}

TEST_F(GrpcPredictServiceTest, SomeInstancesMayFail) {
  GrpcTestClient client(port_);
  const Message x = Instance({Item("x", Tensor({1}, kUint8, "a"))});
  const int32_t call = client.Start(kPredict, Request(Spec("s", "m"), {x, x}).text());
  const RequestTicket ticket = AwaitRequest();
  const TensorView y = Output("b");
  const InstanceResult results[] = {{ErrorKind::kOk, {}, {&y, 1}}, {ErrorKind::kStageFailed, "Predict Failed", {}}};
  Answer(ticket, results);
  ParsedReply reply;
  const std::string message = client.Wait(call).message();
  ASSERT_TRUE(ParseReply(BytesOf(message), &reply).ok());
  ASSERT_EQ(reply.instances.size(), 2u);
  EXPECT_EQ(reply.instances[0].size(), 1u);
  ASSERT_EQ(reply.errors.size(), 2u);
  EXPECT_EQ(reply.errors[0].code, 0);
  EXPECT_EQ(reply.errors[1].message, "Predict Failed");
}

TEST_F(GrpcPredictServiceTest, DeadlineExceededBecomesTheStatus) {
  GrpcTestClient client(port_);
  const int32_t call = client.Start(kPredict, OneRequest());
  const InstanceResult result{ErrorKind::kDeadlineExceeded, "too late", {}};
  Answer(AwaitRequest(), {&result, 1});
  EXPECT_EQ(released_at_once_, 1);
  const GrpcTestClient::Call& answer = client.Wait(call);
  EXPECT_EQ(answer.status(), "4");
  EXPECT_EQ(answer.error(), "too late");
  EXPECT_TRUE(answer.body.empty());
}

TEST_F(GrpcPredictServiceTest, LargeReplyKeepsItsMemoryUntilSent) {
  GrpcTestClient client(port_);
  const int32_t call = client.Start(kPredict, OneRequest());
  const std::string large(48 << 20, 'L');  // more than sockets hold: the client reads only in Wait()
  const TensorView y = Output(large);
  const InstanceResult result{ErrorKind::kOk, {}, {&y, 1}};
  Answer(AwaitRequest(), {&result, 1});
  EXPECT_EQ(released_at_once_, 0);
  OnLoop([&] { EXPECT_EQ(released_, 0); });
  ParsedReply reply;
  const std::string message = client.Wait(call).message();
  ASSERT_TRUE(ParseReply(BytesOf(message), &reply).ok());
  ASSERT_EQ(reply.instances.size(), 1u);
  EXPECT_EQ(std::string_view(reinterpret_cast<const char*>(reply.instances[0][0].view.data), large.size()), large);
  EXPECT_TRUE(Eventually([this] { return released_ == 1; }));
}

TEST_F(GrpcPredictServiceTest, LargeReplyToAClientThatLeavesIsReleased) {
  auto client = std::make_unique<GrpcTestClient>(port_);
  client->Start(kPredict, OneRequest());
  const std::string large(48 << 20, 'L');
  const TensorView y = Output(large);
  const InstanceResult result{ErrorKind::kOk, {}, {&y, 1}};
  Answer(AwaitRequest(), {&result, 1});
  client.reset();
  EXPECT_TRUE(Eventually([this] { return released_ == 1; }));
}

TEST_F(GrpcPredictServiceTest, CancelledCallIsCancelledAtTheDispatcher) {
  GrpcTestClient client(port_);
  const int32_t call = client.Start(kPredict, OneRequest());
  const RequestTicket ticket = AwaitRequest();
  client.Cancel(call);
  EXPECT_TRUE(Eventually([&] { return dispatcher_.cancelled == std::vector<RequestTicket>{ticket}; }));
  OnLoop([&] { EXPECT_EQ(service_.calls_in_flight(), 0u); });
}

TEST_F(GrpcPredictServiceTest, ConnectionGone_AllItsCallsAreCancelled) {
  auto client = std::make_unique<GrpcTestClient>(port_);
  for (int i = 0; i < 3; ++i) {
    client->Start(kPredict, OneRequest());
  }
  ASSERT_TRUE(Eventually([this] { return dispatcher_.pending.size() == 3; }));
  client.reset();
  EXPECT_TRUE(Eventually([this] { return dispatcher_.cancelled.size() == 3; }));
  OnLoop([&] { EXPECT_EQ(service_.calls_in_flight(), 0u); });
}

TEST_F(GrpcPredictServiceTest, DeadlineThatPassesCancelsTheRequest) {
  GrpcTestClient client(port_);
  const int32_t call = client.Start(kPredict, OneRequest(), "30m");
  EXPECT_EQ(client.Wait(call).status(), "4");
  EXPECT_TRUE(Eventually([this] { return dispatcher_.cancelled.size() == 1; }));
}

TEST_F(GrpcPredictServiceTest, ManyCallsAtOnceGetTheirOwnReplies) {
  GrpcTestClient client(port_);
  constexpr int kCalls = 100;
  std::vector<int32_t> calls;
  for (int round = 0; round < 3; ++round) {
    calls.clear();
    for (int i = 0; i < kCalls; ++i) {
      calls.push_back(client.Start(kPredict, OneRequest(std::to_string(i))));
    }
    ASSERT_TRUE(Eventually([this] { return dispatcher_.pending.size() == kCalls; }));
    std::vector<std::pair<RequestTicket, std::string>> requests;
    OnLoop([&] {
      for (const auto& [ticket, request] : dispatcher_.pending) {
        requests.emplace_back(ticket, request.inputs[0]);
      }
    });
    std::reverse(requests.begin(), requests.end());
    for (const auto& [ticket, content] : requests) {
      const std::string output = "for " + content;
      const TensorView y = Output(output);
      const InstanceResult result{ErrorKind::kOk, {}, {&y, 1}};
      Answer(ticket, {&result, 1});
    }
    for (int i = 0; i < kCalls; ++i) {
      EXPECT_NE(client.Wait(calls[static_cast<size_t>(i)]).message().find("for " + std::to_string(i)),
                std::string::npos);
    }
  }
}

TEST_F(GrpcPredictServiceTest, HealthSaysWhetherRequestsWouldBeServed) {
  GrpcTestClient client(port_);
  const std::string serving("\x08\x01", 2);
  const std::string not_serving("\x08\x02", 2);
  EXPECT_EQ(client.Run(kHealth, "").message(), serving);
  EXPECT_EQ(client.Run(kHealth, Message().Bytes(1, "mindspore.serving.proto.MSService").text()).message(), serving);
  OnLoop([&] { health_.is_ready = false; });
  const GrpcTestClient::Call call = client.Run(kHealth, "");
  EXPECT_EQ(call.message(), not_serving);
  EXPECT_EQ(call.status(), "0");
}

TEST_F(GrpcPredictServiceTest, HealthOfUnknownServiceIsNotFound) {
  GrpcTestClient client(port_);
  EXPECT_EQ(client.Run(kHealth, Message().Bytes(1, "who").text()).status(), "5");
  EXPECT_EQ(client.Run(kHealth, "\x0A\x7F").status(), "3");
}

TEST_F(GrpcPredictServiceTest, OtherPathsAreUnimplemented) {
  GrpcTestClient client(port_);
  EXPECT_EQ(client.Run("/mindspore.serving.proto.MSService/Other", "").status(), "12");
  EXPECT_EQ(client.Run("/grpc.health.v1.Health/List", "").status(), "12");
}

}  // namespace
}  // namespace msserving
