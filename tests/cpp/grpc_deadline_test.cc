// Deadlines and cancellation.
#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "grpc_server_fixture.h"
#include "net/grpc_text.h"

namespace msserving {
namespace {

using testing::Frame;
using testing::GrpcServerTest;
using testing::H2Client;
using testing::kEcho;
using testing::With;

TEST_F(GrpcServerTest, ServerEndsACallAtItsDeadline) {
  Serve({}, &clock);
  H2Client client(port());
  const int32_t id = client.Start(With(H2Client::Grpc("/t/Hold"), "grpc-timeout", "5S"), Frame("x"));
  ASSERT_TRUE(client.RunUntil([&] { return service.held == 1; }));
  EXPECT_EQ(service.deadline_left_ns, 5 * kNanosPerSecond);
  Advance(5 * kNanosPerSecond - 1);
  EXPECT_EQ(client.Call(kEcho, "not yet").status(), "0");
  EXPECT_FALSE(client.response(id).closed);
  EXPECT_EQ(service.cancelled, 0);
  Advance(1);
  EXPECT_EQ(client.Wait(id).status(), "4");
  EXPECT_EQ(service.cancelled, 1);
  EXPECT_EQ(calls(), 0u);
}

TEST_F(GrpcServerTest, DeadlineHoldsWhileTheMessageArrives) {
  Serve({}, &clock);
  H2Client client(port());
  const int32_t id =
      client.Start(With(H2Client::Grpc(kEcho), "grpc-timeout", "100m"), Frame("abc").substr(0, 6), false);
  EXPECT_EQ(client.Call(kEcho, "others").status(), "0");
  Advance(100 * kNanosPerMilli);
  EXPECT_EQ(client.Wait(id).status(), "4");
  EXPECT_EQ(service.calls, 1);
}

TEST_F(GrpcServerTest, NoTimeLeftOrNoTimeAtAll) {
  Serve();
  H2Client client(port());
  EXPECT_EQ(client.Call(With(H2Client::Grpc(kEcho), "grpc-timeout", "0S"), Frame("x")).status(), "4");
  EXPECT_EQ(client.Call(With(H2Client::Grpc(kEcho), "grpc-timeout", "5"), Frame("x")).status(), "13");
  EXPECT_EQ(client.Call(With(H2Client::Grpc(kEcho), "grpc-timeout", "99999999H"), Frame("x")).status(), "0");
  EXPECT_EQ(service.calls, 1);
}

TEST(GrpcTextTest, TimeoutUnits) {
  int64_t ns = 0;
  const std::pair<const char*, int64_t> good[] = {{"1H", 3600 * kNanosPerSecond}, {"2M", 120 * kNanosPerSecond},
                                                  {"3S", 3 * kNanosPerSecond},    {"4m", 4 * kNanosPerMilli},
                                                  {"5u", 5 * kNanosPerMicro},     {"12345678n", 12345678}};
  for (const auto& [text, expected] : good) {
    ASSERT_TRUE(ParseGrpcTimeout(text, &ns)) << text;
    EXPECT_EQ(ns, expected) << text;
  }
  for (const char* text : {"", "S", "1", "1s", "-1S", "1.5S", "123456789S", " 1S", "1S "}) {
    EXPECT_FALSE(ParseGrpcTimeout(text, &ns)) << text;
  }
}

TEST_F(GrpcServerTest, ResetCancelsACallOnce) {
  Serve();
  H2Client client(port());
  const int32_t id = client.Start(H2Client::Grpc("/t/Hold"), Frame("x"));
  ASSERT_TRUE(client.RunUntil([&] { return service.held == 1; }));
  client.Cancel(id);
  ASSERT_TRUE(client.RunUntil([&] { return service.cancelled == 1; }));
  EXPECT_EQ(client.Call(kEcho, "x").status(), "0");
  EXPECT_EQ(service.cancelled, 1);
  EXPECT_EQ(calls(), 0u);
}

TEST_F(GrpcServerTest, LostConnectionCancelsItsCalls) {
  Serve();
  {
    H2Client client(port());
    for (int i = 0; i < 10; ++i) {
      client.Start(H2Client::Grpc("/t/Hold"), Frame("x"));
    }
    client.Start(H2Client::Grpc("/t/Hold"), std::string(2, '\0'), false);  // half a request is not a call
    ASSERT_TRUE(client.RunUntil([&] { return service.held == 10; }));
  }
  EXPECT_TRUE(Eventually([&] { return service.cancelled == 10 && connections() == 0; }));
  EXPECT_EQ(calls(), 0u);
}

TEST_F(GrpcServerTest, DestroyedServerCancelsItsCalls) {
  Serve();
  H2Client client(port());
  client.Start(H2Client::Grpc("/t/Hold"), Frame("x"));
  ASSERT_TRUE(client.RunUntil([&] { return service.held == 1; }));
  DestroyServer();
  EXPECT_EQ(service.cancelled, 1);
  EXPECT_FALSE(client.RunUntil([] { return false; }));
  EXPECT_TRUE(client.ended);
}

TEST_F(GrpcServerTest, ReplyMayComeFromAnotherCallOfTheSameConnection) {
  Serve();
  H2Client client(port());
  const int32_t first = client.Start(H2Client::Grpc("/t/Hold"), Frame("one"));
  const int32_t second = client.Start(H2Client::Grpc("/t/Hold"), Frame("two"));
  ASSERT_TRUE(client.RunUntil([&] { return service.held == 2; }));
  EXPECT_EQ(client.Call("/t/Release", "").status(), "0");
  EXPECT_EQ(client.Wait(first).message(), "one");
  EXPECT_EQ(client.Wait(second).message(), "two");
}

}  // namespace
}  // namespace msserving
