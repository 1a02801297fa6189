// Calls and their replies, errors, the end of connections and servers.
#include <gtest/gtest.h>
#include <netinet/tcp.h>

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "grpc_server_fixture.h"

namespace msserving {
namespace {

using testing::Frame;
using testing::GrpcServerTest;
using testing::H2Client;
using testing::Headers;
using testing::kEcho;
using testing::Response;
using testing::With;

Headers Changed(Headers headers, const std::string& name, const std::string& value) {
  for (auto& [key, old] : headers) {
    if (key == name) {
      old = value;
    }
  }
  return headers;
}

// ---- plain calls ----

TEST_F(GrpcServerTest, AnswersWithHeadersMessageAndTrailers) {
  Serve();
  H2Client client(port());
  Response& response = client.Call(kEcho, "hello");
  EXPECT_EQ(response.header(":status"), "200");
  EXPECT_EQ(response.header("content-type"), "application/grpc");
  EXPECT_EQ(response.data, Frame("hello"));
  EXPECT_EQ(response.status(), "0");
  EXPECT_EQ(response.error_code, 0u);
}

TEST_F(GrpcServerTest, EmptyMessageIsAMessage) {
  Serve();
  H2Client client(port());
  EXPECT_EQ(client.Call(kEcho, "").data, Frame(""));
}

TEST_F(GrpcServerTest, MessageMayComeAByteAtATime) {
  Serve();
  H2Client client(port());
  const std::string framed = Frame("drop by drop");
  const int32_t id = client.Start(H2Client::Grpc(kEcho), framed.substr(0, 1), false);
  for (size_t i = 1; i < framed.size(); ++i) {
    client.Continue(id, framed.substr(i, 1), false);
  }
  client.Continue(id, "", true);
  EXPECT_EQ(client.Wait(id).data, framed);
}

TEST_F(GrpcServerTest, RepliesThatRunTogetherDoNotMixUp) {
  Serve();
  H2Client client(port());
  std::vector<int32_t> ids;
  for (int i = 0; i < 500; ++i) {
    ids.push_back(client.Start(H2Client::Grpc(kEcho), Frame(std::string(static_cast<size_t>(i) * 37, 'a' + i % 26))));
  }
  for (int i = 0; i < 500; ++i) {
    EXPECT_EQ(client.Wait(ids[static_cast<size_t>(i)]).message(),
              std::string(static_cast<size_t>(i) * 37, 'a' + i % 26));
  }
}

TEST_F(GrpcServerTest, SlicesGoOutInOrderAndTheirKeeperLivesUntilThen) {
  Serve();
  H2Client client(port());
  const Response& response = client.Call("/t/Slices", "3000000");
  ASSERT_EQ(response.data.size(), 5 + 4 + 3'000'000u);
  EXPECT_EQ(response.message(), "ab" + std::string(3'000'000, 's') + "cd");
  EXPECT_TRUE(client.RunUntil([&] { return service.keepers_gone == 1; }));
}

TEST_F(GrpcServerTest, ReplyToAReaderThatLeavesReleasesItsKeeper) {
  Serve();
  {
    H2Client client(port());
    const int32_t id = client.Start(H2Client::Grpc("/t/Slices"), Frame("50000000"));
    ASSERT_TRUE(client.RunUntil([&] { return client.response(id).data.size() > 100'000; }));
    EXPECT_EQ(service.keepers_gone, 0);
  }
  EXPECT_TRUE(Eventually([&] { return service.keepers_gone == 1 && connections() == 0; }));
}

TEST_F(GrpcServerTest, HundredMegabytesThroughSmallWindows) {
  GrpcServerOptions options;
  options.stream_window_bytes = 65535;
  options.connection_window_bytes = 65535;
  Serve(options);
  H2Client client(port(), 65535);
  std::string message(size_t{100} << 20, 'm');
  for (size_t i = 0; i < message.size(); i += 4099) {
    message[i] = static_cast<char>(i);
  }
  const Response& response = client.Call(kEcho, message);
  EXPECT_EQ(response.status(), "0");
  EXPECT_TRUE(response.message() == message);
}

// ---- errors ----

TEST_F(GrpcServerTest, UnknownMethodIsRefusedBeforeItsMessage) {
  Serve();
  H2Client client(port());
  const int32_t id = client.Start(H2Client::Grpc("/no/Such"), Frame("x").substr(0, 3), false);
  const Response& response = client.Wait(id);
  EXPECT_EQ(response.header(":status"), "200");
  EXPECT_EQ(response.status(), "12");
  EXPECT_EQ(response.header("grpc-message"), "unknown method /no/Such");
  EXPECT_EQ(response.data, "");
}

TEST_F(GrpcServerTest, OnlyGrpcPostsAreCalls) {
  Serve();
  H2Client client(port());
  const Headers good = H2Client::Grpc(kEcho);
  EXPECT_EQ(client.Call(Changed(good, ":method", "GET"), "").header(":status"), "405");
  EXPECT_EQ(client.Call(Changed(good, "content-type", "application/json"), "{}").header(":status"), "415");
  EXPECT_EQ(client.Call(Changed(good, "content-type", "application/grpc-web"), "").header(":status"), "415");
  EXPECT_EQ(client.Call(Changed(good, "content-type", "application/grpc+json"), "").header(":status"), "415");
  Headers none = good;
  none.pop_back();
  EXPECT_EQ(client.Call(none, "").header(":status"), "415");
  for (const char* type : {"application/grpc+proto", "application/grpc; charset=utf-8", "Application/GRPC"}) {
    EXPECT_EQ(client.Call(Changed(good, "content-type", type), Frame("x")).status(), "0") << type;
  }
  EXPECT_EQ(service.calls, 3);
}

TEST_F(GrpcServerTest, FailureIsTrailersOnlyAndItsTextIsPercentEncoded) {
  Serve();
  H2Client client(port());
  const Response& response = client.Call("/t/Fail", "50 % of \xC3\xBC\n");
  EXPECT_EQ(response.status(), "3");
  EXPECT_EQ(response.header("grpc-message"), "50 %25 of %C3%BC%0A");
  EXPECT_EQ(response.data, "");
}

TEST_F(GrpcServerTest, MessagesThatAreNotOneMessage) {
  Serve();
  H2Client client(port());
  const Headers good = H2Client::Grpc(kEcho);
  EXPECT_EQ(client.Call(good, "").status(), "12");
  EXPECT_EQ(client.Call(good, Frame("a") + Frame("b")).status(), "12");
  EXPECT_EQ(client.Call(good, Frame("abc").substr(0, 4)).status(), "13");
  EXPECT_EQ(client.Call(good, Frame("abc").substr(0, 7)).status(), "13");
  EXPECT_EQ(client.Call(good, Frame("abc", 2)).status(), "13");
  EXPECT_EQ(client.Call(good, Frame("abc", 1)).status(), "13");
  EXPECT_EQ(client.Call(With(good, "grpc-encoding", "snappy"), Frame("abc", 1)).status(), "12");
  EXPECT_EQ(client.Call(With(good, "grpc-encoding", "snappy"), Frame("abc", 0)).status(), "0");
  EXPECT_EQ(service.calls, 1);
}

TEST_F(GrpcServerTest, TooLargeIsRefusedByItsPrefixInBothDirections) {
  GrpcServerOptions options;
  options.max_receive_bytes = 1000;
  options.max_send_bytes = 2000;
  Serve(options);
  H2Client client(port());
  EXPECT_EQ(client.Call(kEcho, std::string(1000, 'x')).status(), "0");
  // Only the prefix is sent: the answer does not wait for the message.
  const int32_t id = client.Start(H2Client::Grpc(kEcho), std::string("\0\xff\xff\xff\xff", 5), false);
  EXPECT_EQ(client.Wait(id).status(), "8");
  EXPECT_EQ(client.response(id).header("grpc-message"), "Received message larger than max (4294967295 vs. 1000)");
  const Response& sent = client.Call("/t/Slices", "2000");
  EXPECT_EQ(sent.status(), "8");
  EXPECT_EQ(sent.header("grpc-message"), "Sent message larger than max (2004 vs. 2000)");
  EXPECT_EQ(service.keepers_gone, 1);
  EXPECT_EQ(client.Call(kEcho, "still here").message(), "still here");
}

TEST_F(GrpcServerTest, BufferedBytesAreBoundedForAllCallsTogether) {
  GrpcServerOptions options;
  options.bytes_in_flight = std::make_shared<ByteBudget>(10'000);
  options.connection_bytes_share = 1;
  Serve(options);
  H2Client client(port());
  const int32_t held = client.Start(H2Client::Grpc("/t/Hold"), Frame(std::string(8000, 'h')));
  ASSERT_TRUE(client.RunUntil([&] { return service.held == 1; }));
  const Response& refused = client.Call(kEcho, std::string(4000, 'x'));
  EXPECT_EQ(refused.status(), "8");
  EXPECT_EQ(refused.header("grpc-message"),
            "bytes in flight exceed the limit 10000: 8000 are in use and 4000 more are needed; try again later");
  EXPECT_EQ(client.Call(kEcho, std::string(1000, 'x')).status(), "0");
  client.Cancel(held);
  ASSERT_TRUE(client.RunUntil([&] { return service.cancelled == 1; }));
  EXPECT_EQ(client.Call(kEcho, std::string(4000, 'x')).status(), "0");
  EXPECT_TRUE(Eventually([&] { return options.bytes_in_flight->used() == 0; }));
}

TEST_F(GrpcServerTest, RepliesCountUntilTheyAreSent) {
  GrpcServerOptions options;
  options.bytes_in_flight = std::make_shared<ByteBudget>(64 << 20);
  Serve(options);
  H2Client client(port(), 1000);  // a window that lets hardly anything through
  const int32_t id = client.Start(H2Client::Grpc(kEcho), Frame(std::string(4 << 20, 'r')));
  ASSERT_TRUE(client.RunUntil([&] { return service.calls == 1; }));
  EXPECT_TRUE(Eventually([&] { return options.bytes_in_flight->used() == 4 << 20; }));
  client.Cancel(id);
  EXPECT_TRUE(client.RunUntil([&] { return options.bytes_in_flight->used() == 0; }));
}

TEST_F(GrpcServerTest, ConnectionsAreCountedForAllServersThatShareTheCount) {
  GrpcServerOptions options;
  options.max_connections = 2;
  options.connections = std::make_shared<std::atomic<size_t>>(1);  // another loop's
  Serve(options);
  auto first = std::make_unique<H2Client>(port());
  EXPECT_EQ(first->Call(kEcho, "a").status(), "0");
  H2Client second(port());
  EXPECT_FALSE(second.RunUntil([] { return false; }));
  EXPECT_TRUE(second.ended);
  first.reset();
  ASSERT_TRUE(Eventually([&] { return *options.connections == 1; }));
  H2Client third(port());
  EXPECT_EQ(third.Call(kEcho, "a").status(), "0");
}

// ---- request ids ----

TEST_F(GrpcServerTest, ErrorsCarryTheRequestId) {
  Serve();
  H2Client client(port());
  const Headers named = With(H2Client::Grpc("/t/Fail"), "x-request-id", "Trace-7:a/b");
  EXPECT_EQ(client.Call(named, Frame("why")).header("x-request-id"), "Trace-7:a/b");
  const std::string made = client.Call("/t/Fail", "why").header("x-request-id");
  EXPECT_EQ(made.size(), 16u);
  EXPECT_NE(client.Call("/t/Fail", "why").header("x-request-id"), made);
  for (const std::string& odd :
       {std::string("a b"), std::string("a\"b"), std::string("\xC3\xA9"), std::string(129, 'a')}) {
    EXPECT_EQ(
        client.Call(With(H2Client::Grpc("/t/Fail"), "x-request-id", odd), Frame("")).header("x-request-id").size(), 16u)
        << odd;
  }
  EXPECT_EQ(client.Call(With(H2Client::Grpc(kEcho), "x-request-id", "a"), Frame("b")).header("x-request-id"), "")
      << "no error";
  EXPECT_EQ(client.Call(With(H2Client::Grpc("/t/None"), "x-request-id", "c"), Frame("")).header("x-request-id"), "c");
}

// ---- the end ----

TEST_F(GrpcServerTest, DrainLetsRunningCallsFinish) {
  Serve();
  H2Client client(port());
  const int32_t id = client.Start(H2Client::Grpc("/t/Hold"), Frame("x"));
  ASSERT_TRUE(client.RunUntil([&] { return service.held == 1; }));
  OnLoop([&] { server->Drain(); });
  ASSERT_TRUE(client.RunUntil([&] { return client.goaways == 2; }));
  EXPECT_EQ(client.goaway_error, 0u);
  EXPECT_FALSE(client.ended);
  OnLoop([&] { service.ReleaseAll(); });
  EXPECT_EQ(client.Wait(id).message(), "x");
  EXPECT_FALSE(client.RunUntil([] { return false; }));
  EXPECT_TRUE(client.ended);
  EXPECT_TRUE(Eventually([&] { return connections() == 0; }));
  EXPECT_FALSE(testing::Connects(port()));  // nobody listens there any more
}

// The server's end of a client's connection, found among the descriptors of this process.
int ServersEnd(int client) {
  sockaddr_in name{};
  socklen_t size = sizeof(name);
  getsockname(client, reinterpret_cast<sockaddr*>(&name), &size);
  for (int fd = 0; fd < 1024; ++fd) {
    sockaddr_in peer{};
    size = sizeof(peer);
    if (fd != client && getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &size) == 0 && peer.sin_family == AF_INET &&
        peer.sin_port == name.sin_port) {
      return fd;
    }
  }
  return -1;
}

TEST_F(GrpcServerTest, PeersThatVanishAreAskedFor) {
  Serve();
  H2Client client(port());
  ASSERT_EQ(client.Call("/t/Echo", "x").status(), "0");
  const int fd = ServersEnd(client.fd());
  ASSERT_GE(fd, 0);
  const auto option = [fd](int level, int name) {
    int value = -1;
    socklen_t size = sizeof(value);
    EXPECT_EQ(getsockopt(fd, level, name, &value, &size), 0);
    return value;
  };
  EXPECT_EQ(option(SOL_SOCKET, SO_KEEPALIVE), 1);
  EXPECT_EQ(option(IPPROTO_TCP, TCP_KEEPIDLE), 120);
  EXPECT_EQ(option(IPPROTO_TCP, TCP_KEEPINTVL), 30);
  EXPECT_EQ(option(IPPROTO_TCP, TCP_KEEPCNT), 4);
  EXPECT_EQ(option(IPPROTO_TCP, TCP_NODELAY), 1);
}

}  // namespace
}  // namespace msserving
