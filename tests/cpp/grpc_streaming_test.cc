#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "grpc_server_fixture.h"

namespace msserving {
namespace {

using testing::Connects;
using testing::Frame;
using testing::GrpcServerTest;
using testing::H2Client;
using testing::Headers;
using testing::Response;

const Headers kStream = H2Client::Grpc("/t/Stream");

class GrpcStreamingTest : public GrpcServerTest {
 protected:
  bool Arrives(H2Client* client, int32_t id, const std::string& data) {
    const bool there = client->RunUntil([&] { return client->response(id).data.size() >= data.size(); });
    EXPECT_EQ(client->response(id).data, data);
    return there;
  }
};

TEST_F(GrpcStreamingTest, EveryMessageIsAnsweredAtOnce) {
  Serve();
  H2Client client(port());
  const int32_t id = client.Start(kStream, Frame("one"), false);
  ASSERT_TRUE(Arrives(&client, id, Frame("one")));
  client.Continue(id, Frame("two") + Frame(""), false);
  ASSERT_TRUE(Arrives(&client, id, Frame("one") + Frame("two") + Frame("")));
  EXPECT_FALSE(client.response(id).closed);
  EXPECT_EQ(calls(), 1u);
  client.Continue(id, "", true);
  EXPECT_EQ(client.Wait(id).status(), "0");
  EXPECT_EQ(client.response(id).header(":status"), "200");
  EXPECT_EQ(calls(), 0u);
}

TEST_F(GrpcStreamingTest, MessagesMayComeInAnyPieces) {
  Serve();
  H2Client client(port());
  const std::string all = Frame("hello") + Frame("") + Frame("world");
  const int32_t id = client.Start(kStream, all.substr(0, 1), false);
  for (size_t i = 1; i < all.size(); ++i) {
    client.Continue(id, all.substr(i, 1), i + 1 == all.size());
  }
  EXPECT_EQ(client.Wait(id).data, all);
  EXPECT_EQ(client.response(id).status(), "0");
}

TEST_F(GrpcStreamingTest, WithoutAMessageTheEndIsAnswered) {
  Serve();
  H2Client client(port());
  const Response& response = client.Call(kStream, "");
  EXPECT_EQ(response.status(), "0");
  EXPECT_EQ(response.data, "");
}

TEST_F(GrpcStreamingTest, FailureBeforeAndAfterAMessage) {
  Serve();
  H2Client client(port());
  const Response& before = client.Call(kStream, Frame("fail"));
  EXPECT_EQ(before.status(), "13");
  EXPECT_EQ(before.header("grpc-message"), "as asked");
  const Response& after = client.Call(kStream, Frame("one") + Frame("fail") + Frame("not looked at"));
  EXPECT_EQ(after.data, Frame("one"));
  EXPECT_EQ(after.status(), "13");
  EXPECT_EQ(after.header("grpc-message"), "as asked");
  EXPECT_EQ(service.streams.messages, 3);
}

TEST_F(GrpcStreamingTest, BadMessagesEndTheCallAndTheServiceIsTold) {
  Serve();
  H2Client client(port());
  const std::string large(GrpcStream::kMaxMessageBytes + 1, 'x');
  EXPECT_EQ(client.Call(kStream, Frame("a") + Frame(large)).status(), "8");
  EXPECT_EQ(client.Call(kStream, Frame("a") + Frame("b", 7)).status(), "13");
  EXPECT_EQ(client.Call(kStream, Frame("a") + Frame("b").substr(0, 5)).status(), "13");
  EXPECT_TRUE(Eventually([&] { return service.streams.cancelled == 3; }));
  OnLoop([&] { EXPECT_TRUE(service.streams.open.empty()); });
  EXPECT_EQ(client.Call(kStream, Frame(large.substr(1))).status(), "0");
}

TEST_F(GrpcStreamingTest, WhatAClientDoesNotReadIsBounded) {
  Serve();
  H2Client client(port(), 10);  // ten bytes of each reply
  const int32_t id = client.Start(kStream, Frame("fill"));
  ASSERT_TRUE(client.RunUntil([&] { return service.streams.filled > 0; }));
  EXPECT_TRUE(Eventually([&] { return service.streams.filled == 10; }));
  EXPECT_FALSE(client.response(id).closed);
  nghttp2_submit_window_update(client.session(), NGHTTP2_FLAG_NONE, id, 2 << 20);
  EXPECT_EQ(client.Wait(id).data.size(), 10 * 100'005u);
  EXPECT_EQ(client.response(id).status(), "8");
}

TEST_F(GrpcStreamingTest, CancelAndLossOfTheConnectionAreTold) {
  Serve();
  auto client = std::make_unique<H2Client>(port());
  const int32_t id = client->Start(kStream, Frame("one"), false);
  client->Start(kStream, Frame("two"), false);
  ASSERT_TRUE(client->RunUntil([&] { return service.streams.messages == 2; }));
  client->Cancel(id);
  EXPECT_TRUE(Eventually([&] { return service.streams.cancelled == 1; }));
  client.reset();
  EXPECT_TRUE(Eventually([&] { return service.streams.cancelled == 2; }));
  EXPECT_EQ(calls(), 0u);
}

TEST_F(GrpcStreamingTest, DeadlineEndsTheCallWithItsStatus) {
  Serve({}, &clock);
  H2Client client(port());
  Headers headers = kStream;
  headers.emplace_back("grpc-timeout", "5S");
  const int32_t id = client.Start(headers, Frame("one"), false);
  ASSERT_TRUE(Arrives(&client, id, Frame("one")));
  Advance(6 * kNanosPerSecond);
  EXPECT_EQ(client.Wait(id).status(), "4");
  EXPECT_EQ(client.response(id).data, Frame("one"));
  EXPECT_EQ(service.streams.cancelled, 1);
}

TEST_F(GrpcStreamingTest, DrainEndsStreamsAndTheConnection) {
  Serve();
  H2Client client(port());
  const int32_t id = client.Start(kStream, Frame("one"), false);
  ASSERT_TRUE(Arrives(&client, id, Frame("one")));
  OnLoop([&] { server->Drain(); });
  EXPECT_EQ(client.Wait(id).status(), "14");
  EXPECT_EQ(client.response(id).header("grpc-message"), "drains");
  EXPECT_FALSE(client.RunUntil([] { return false; }));
  EXPECT_TRUE(client.ended);
  EXPECT_FALSE(Connects(port()));
}

TEST_F(GrpcStreamingTest, HalfAMessageIsGivenUpOn) {
  GrpcServerOptions options;
  options.incomplete_timeout_ns = 10 * kNanosPerSecond;
  Serve(options, &clock);
  H2Client client(port());
  const int32_t whole = client.Start(kStream, Frame("whole"), false);
  const int32_t half = client.Start(kStream, Frame("one") + Frame("two").substr(0, 6), false);
  ASSERT_TRUE(Arrives(&client, whole, Frame("whole")));
  ASSERT_TRUE(Arrives(&client, half, Frame("one")));
  OnLoop([] {});
  for (int i = 0; i < 8; ++i) {
    Advance(2 * kNanosPerSecond);
  }
  EXPECT_EQ(client.Wait(half).status(), "4");
  EXPECT_FALSE(client.response(whole).closed) << "a stream between messages may wait";
}

TEST_F(GrpcStreamingTest, AClientThatNeverReadsIsReset) {
  GrpcServerOptions options;
  options.slow_reader_timeout_ns = 10 * kNanosPerSecond;
  Serve(options, &clock);
  H2Client client(port(), 10);
  const int32_t id = client.Start(kStream, Frame("more than ten bytes"), false);
  ASSERT_TRUE(client.RunUntil([&] { return client.response(id).data.size() == 10; }));
  for (int i = 0; i < 8; ++i) {
    Advance(2 * kNanosPerSecond);
  }
  EXPECT_EQ(client.Wait(id).error_code, static_cast<uint32_t>(NGHTTP2_CANCEL));
  EXPECT_TRUE(Eventually([&] { return service.streams.cancelled == 1; }));
}

TEST_F(GrpcStreamingTest, DestroyedServerCancelsStreams) {
  Serve();
  H2Client client(port());
  client.Start(kStream, Frame("silent"), false);
  ASSERT_TRUE(client.RunUntil([&] { return service.streams.messages == 1; }));
  DestroyServer();
  EXPECT_EQ(service.streams.cancelled, 1);
}

}  // namespace
}  // namespace msserving
