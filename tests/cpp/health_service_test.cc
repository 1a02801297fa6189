// Health and reflection, through the server, as clients see them.
#include "protocol/health_service.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "../support/fake_dispatcher.h"
#include "../support/http_client.h"
#include "../support/loop_thread.h"
#include "h2_test_client.h"
#include "protocol/descriptors.h"
#include "protocol/grpc_predict_service.h"
#include "wire_builder.h"

namespace msserving {
namespace {

using testing::Frame;
using testing::H2Client;
using testing::Response;

const std::string kServing("\x08\x01", 2);
const std::string kNotServing("\x08\x02", 2);
const std::string kServiceUnknown("\x08\x03", 2);

class HealthServiceTest : public ::testing::Test {
 protected:
  HealthServiceTest() {
    UniqueFd socket = ListenAnywhere(&port_);
    thread_.Do([&] {
      service_ = std::make_unique<GrpcPredictService>(&dispatcher_, &health_);
      server_ = std::make_unique<GrpcServer>(&thread_.loop(), std::move(socket), GrpcServerOptions{}, service_.get(),
                                             nullptr);
    });
  }
  ~HealthServiceTest() override {
    thread_.Do([&] {
      server_.reset();
      service_.reset();
    });
  }

  static std::string Named(std::string_view name) { return Message().Bytes(1, name).text(); }

  std::string Check(H2Client* client, std::string_view name) {
    const Response& response = client->Call(std::string(HealthService::kCheckPath), Named(name));
    return response.status() == "0" ? response.message() : "status " + response.status();
  }
  int32_t Watch(H2Client* client, std::string_view name) {
    return client->Start(H2Client::Grpc(std::string(HealthService::kWatchPath)), Frame(Named(name)));
  }
  static bool Told(H2Client* client, int32_t id, const std::vector<std::string>& statuses) {
    std::string expected;
    for (const std::string& status : statuses) {
      expected += Frame(status);
    }
    const bool there = client->RunUntil([&] { return client->response(id).data.size() >= expected.size(); });
    EXPECT_EQ(client->response(id).data, expected);
    return there;
  }

  LoopThread thread_;
  FakeDispatcher dispatcher_;
  FakeHealth health_;
  std::unique_ptr<GrpcPredictService> service_;
  std::unique_ptr<GrpcServer> server_;
  int port_ = 0;
};

TEST_F(HealthServiceTest, CheckKnowsTheServerAndEveryServable) {
  thread_.Do([&] {
    health_.servables[{"add", 0}] = ServableHealth::kServing;
    health_.servables[{"add", 2}] = ServableHealth::kServing;
    health_.servables[{"lost", 0}] = ServableHealth::kNotServing;
  });
  H2Client client(port_);
  EXPECT_EQ(Check(&client, ""), kServing);
  EXPECT_EQ(Check(&client, "mindspore.serving.proto.MSService"), kServing);
  EXPECT_EQ(Check(&client, "add"), kServing);
  EXPECT_EQ(Check(&client, "add/2"), kServing);
  EXPECT_EQ(Check(&client, "lost"), kNotServing);
  for (const char* unknown :
       {"add/3", "add/0", "add/", "add/02", "add/2x", "add/-1", "add/99999999999999999999", "who"}) {
    EXPECT_EQ(Check(&client, unknown), "status 5") << unknown;
  }
}

TEST_F(HealthServiceTest, WatchTellsThePresentStatusAndEveryChange) {
  H2Client client(port_);
  const int32_t all = Watch(&client, "");
  const int32_t add = Watch(&client, "add/2");
  ASSERT_TRUE(Told(&client, all, {kServing}));
  ASSERT_TRUE(Told(&client, add, {kServiceUnknown}));
  thread_.Do([&] { health_.servables[{"add", 2}] = ServableHealth::kServing; });
  ASSERT_TRUE(Told(&client, add, {kServiceUnknown, kServing}));
  thread_.Do([&] { health_.is_ready = false; });
  ASSERT_TRUE(Told(&client, all, {kServing, kNotServing}));
  thread_.Do([&] { health_.is_ready = true; });
  ASSERT_TRUE(Told(&client, all, {kServing, kNotServing, kServing}));
  client.Cancel(add);
  thread_.Do([&] { health_.is_ready = false; });
  ASSERT_TRUE(Told(&client, all, {kServing, kNotServing, kServing, kNotServing}));
}

TEST_F(HealthServiceTest, WatchEndsWhenTheServerDrains) {
  H2Client client(port_);
  const int32_t id = Watch(&client, "");
  ASSERT_TRUE(Told(&client, id, {kServing}));
  thread_.Do([&] { server_->Drain(); });
  EXPECT_EQ(client.Wait(id).status(), "14");
  EXPECT_EQ(client.response(id).data, Frame(kServing) + Frame(kNotServing));
  // Nothing is left once the connection knows its last stream, too.
  EXPECT_TRUE(client.RunUntil([&] {
    size_t calls = 1;
    thread_.Do([&] { calls = server_->calls(); });
    return calls == 0;
  }));
}

TEST_F(HealthServiceTest, WatchTakesOneRequest) {
  H2Client client(port_);
  const std::string path(HealthService::kWatchPath);
  EXPECT_EQ(client.Call(H2Client::Grpc(path), Frame("") + Frame("")).status(), "3");
  EXPECT_EQ(client.Call(H2Client::Grpc(path), "").status(), "3");
  EXPECT_EQ(client.Call(H2Client::Grpc(path), Frame("\x0A\x7F")).status(), "3");
}

TEST_F(HealthServiceTest, WatchersAreBounded) {
  H2Client client(port_);
  for (size_t i = 0; i < HealthService::kMaxWatchers; ++i) {
    Watch(&client, "");
  }
  const int32_t last = Watch(&client, "");
  EXPECT_EQ(client.Wait(last).status(), "8");
  client.Cancel(1);
  ASSERT_TRUE(Told(&client, Watch(&client, ""), {kServing}));
}

// ---- reflection ----

class ReflectionServiceTest : public HealthServiceTest {
 protected:
  // The response's field and its content, after host and request.
  std::string Ask(const Message& request) {
    Buffer reply;
    const std::string text = request.text();
    const auto* bytes = reinterpret_cast<const uint8_t*>(text.data());
    EXPECT_TRUE(ReflectionService::Answer({bytes, text.size()}, &reply));
    const std::string prefix = Message().Bytes(1, "").Bytes(2, text).text();
    const std::string all(reply.bytes().begin(), reply.bytes().end());
    EXPECT_EQ(all.substr(0, prefix.size()), prefix);
    return all.substr(prefix.size());
  }

  static std::string FileReply(std::string_view name) {
    const FileDescriptor* file = FindFile(name);
    EXPECT_NE(file, nullptr);
    const std::string bytes(file->bytes.begin(), file->bytes.end());
    return Message().Sub(4, Message().Bytes(1, bytes)).text();
  }

  static std::string NotFound(std::string_view what) {
    return Message().Sub(7, Message().Number(1, 5).Bytes(2, "not found: " + std::string(what))).text();
  }
};

TEST_F(ReflectionServiceTest, ServicesAreThoseThatCanBeCalled) {
  const auto service = [](std::string_view name) { return Message().Bytes(1, name); };
  EXPECT_EQ(Ask(Message().Bytes(7, "*")), Message()
                                              .Sub(6, Message()
                                                          .Sub(1, service("mindspore.serving.proto.MSService"))
                                                          .Sub(1, service("grpc.health.v1.Health"))
                                                          .Sub(1, service("grpc.reflection.v1.ServerReflection"))
                                                          .Sub(1, service("grpc.reflection.v1alpha.ServerReflection")))
                                              .text());
  // Every one of their methods is one that the server has.
  thread_.Do([&] {
    for (const FileDescriptor& file : AllFileDescriptors()) {
      for (const std::string_view name : file.services) {
        for (const std::string_view symbol : file.symbols) {
          if (symbol.size() > name.size() + 1 && symbol.starts_with(name) && symbol[name.size()] == '.') {
            const std::string path = "/" + std::string(name) + "/" + std::string(symbol.substr(name.size() + 1));
            EXPECT_TRUE(service_->HasMethod(path)) << path;
          }
        }
      }
    }
  });
}

TEST_F(ReflectionServiceTest, FilesByNameAndBySymbol) {
  const std::string contract = "mindspore_serving/proto/ms_service.proto";
  EXPECT_EQ(Ask(Message().Bytes(3, contract)), FileReply(contract));
  for (const char* symbol :
       {"mindspore.serving.proto.MSService", "mindspore.serving.proto.MSService.Predict",
        "mindspore.serving.proto.Tensor", "mindspore.serving.proto.Tensor.dtype", "mindspore.serving.proto.DataType",
        "mindspore.serving.proto.MS_FLOAT32", "mindspore.serving.proto.Instance.ItemsEntry"}) {
    EXPECT_EQ(Ask(Message().Bytes(4, symbol)), FileReply(contract)) << symbol;
  }
  EXPECT_EQ(Ask(Message().Bytes(4, "grpc.health.v1.Health")), FileReply("grpc/health/v1/health.proto"));
  EXPECT_EQ(Ask(Message().Bytes(4, "grpc.reflection.v1alpha.ErrorResponse")),
            FileReply("grpc/reflection/v1alpha/reflection.proto"));
  EXPECT_EQ(Ask(Message().Bytes(4, "mindspore.serving.proto")), NotFound("mindspore.serving.proto"));
  EXPECT_EQ(Ask(Message().Bytes(3, "/etc/passwd")), NotFound("/etc/passwd"));
  EXPECT_EQ(Ask(Message().Bytes(6, "mindspore.serving.proto.Tensor")),
            Message().Sub(5, Message().Bytes(1, "mindspore.serving.proto.Tensor")).text());
  EXPECT_EQ(Ask(Message().Bytes(6, "mindspore.serving.proto.MSService")),
            NotFound("mindspore.serving.proto.MSService"));
}

TEST_F(ReflectionServiceTest, BothVersionsAnswerRequestAfterRequest) {
  for (const std::string_view path : {ReflectionService::kPathV1, ReflectionService::kPathV1Alpha}) {
    H2Client client(port_);
    const std::string ask = Frame(Message().Bytes(7, "").text());
    const int32_t id = client.Start(H2Client::Grpc(std::string(path)), ask, false);
    ASSERT_TRUE(client.RunUntil([&] { return !client.response(id).data.empty(); }));
    const std::string first = client.response(id).data;
    EXPECT_NE(first.find("MSService"), std::string::npos);
    client.Continue(id, ask, true);
    EXPECT_EQ(client.Wait(id).data, first + first);
    EXPECT_EQ(client.response(id).status(), "0");
  }
}

TEST_F(ReflectionServiceTest, CallsAreBoundedAndMalformedOnesRefused) {
  H2Client client(port_);
  const auto headers = H2Client::Grpc(std::string(ReflectionService::kPathV1));
  EXPECT_EQ(client.Call(headers, Frame("\xFF\xFF")).status(), "3");
  const std::string ask = Frame(Message().Bytes(7, "").text());
  int32_t first = 0;
  for (size_t i = 0; i < ReflectionService::kMaxStreams; ++i) {
    const int32_t id = client.Start(headers, ask, false);
    first = first == 0 ? id : first;
  }
  EXPECT_EQ(client.Call(headers, ask).status(), "8");
  client.Cancel(first);
  EXPECT_EQ(client.Call(headers, ask).status(), "0");
}

}  // namespace
}  // namespace msserving
