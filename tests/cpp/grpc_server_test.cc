#include "net/grpc_server.h"

#include <gtest/gtest.h>
#include <netinet/tcp.h>
#include <zlib.h>

#include <string>
#include <utility>
#include <vector>

#include "grpc_server_fixture.h"
#include "net/connection.h"
#include "net/grpc_text.h"

namespace msserving {
namespace {

using testing::Frame;
using testing::GrpcServerTest;
using testing::H2Client;
using testing::Headers;
using testing::Response;

std::string Pack(const std::string& plain, int window) {
  z_stream stream{};
  EXPECT_EQ(deflateInit2(&stream, 6, Z_DEFLATED, window, 8, Z_DEFAULT_STRATEGY), Z_OK);
  std::string packed(deflateBound(&stream, plain.size()), '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(plain.data()));
  stream.avail_in = static_cast<uInt>(plain.size());
  stream.next_out = reinterpret_cast<Bytef*>(packed.data());
  stream.avail_out = static_cast<uInt>(packed.size());
  EXPECT_EQ(deflate(&stream, Z_FINISH), Z_STREAM_END);
  packed.resize(stream.total_out);
  deflateEnd(&stream);
  return packed;
}

std::string Gzip(const std::string& plain) { return Pack(plain, 15 + 16); }

std::string Gunzip(const std::string& packed) {
  z_stream stream{};
  inflateInit2(&stream, 15 + 16);
  std::string plain(10 << 20, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(packed.data()));
  stream.avail_in = static_cast<uInt>(packed.size());
  stream.next_out = reinterpret_cast<Bytef*>(plain.data());
  stream.avail_out = static_cast<uInt>(plain.size());
  EXPECT_EQ(inflate(&stream, Z_FINISH), Z_STREAM_END);
  plain.resize(stream.total_out);
  inflateEnd(&stream);
  return plain;
}

Headers With(Headers headers, const std::string& name, const std::string& value) {
  headers.emplace_back(name, value);
  return headers;
}

Headers Changed(Headers headers, const std::string& name, const std::string& value) {
  for (auto& [key, old] : headers) {
    if (key == name) {
      old = value;
    }
  }
  return headers;
}

const std::string kEcho = "/t/Echo";

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

// ---- compression ----

TEST_F(GrpcServerTest, GzipInGzipOut) {
  Serve();
  H2Client client(port());
  const std::string plain(100'000, 'z');
  const Headers headers =
      With(With(H2Client::Grpc(kEcho), "grpc-encoding", "gzip"), "grpc-accept-encoding", "identity, deflate, gzip");
  const Response& response = client.Call(headers, Frame(Gzip(plain), 1));
  EXPECT_EQ(response.header("grpc-encoding"), "gzip");
  ASSERT_GT(response.data.size(), 5u);
  EXPECT_EQ(response.data[0], 1);
  EXPECT_LT(response.data.size(), 1000u);
  EXPECT_EQ(Gunzip(response.message()), plain);
}

TEST_F(GrpcServerTest, ReplyIsPlainUnlessTheClientTakesGzipAndUsesIt) {
  Serve();
  H2Client client(port());
  const std::string plain(10'000, 'z');
  const Response& not_accepted =
      client.Call(With(H2Client::Grpc(kEcho), "grpc-encoding", "gzip"), Frame(Gzip(plain), 1));
  EXPECT_EQ(not_accepted.data, Frame(plain));
  EXPECT_EQ(not_accepted.header("grpc-encoding"), "");
  const Response& not_used = client.Call(With(H2Client::Grpc(kEcho), "grpc-accept-encoding", "gzip"), Frame(plain));
  EXPECT_EQ(not_used.data, Frame(plain));
  EXPECT_EQ(not_used.header("grpc-accept-encoding"), "identity,deflate,gzip");
}

TEST_F(GrpcServerTest, DeflateMeansZlib) {
  Serve();
  H2Client client(port());
  const Headers headers = With(H2Client::Grpc(kEcho), "grpc-encoding", "deflate");
  EXPECT_EQ(client.Call(headers, Frame(Pack("hello", 15), 1)).data, Frame("hello"));
  // One after the other on the same state.
  EXPECT_EQ(client.Call(With(H2Client::Grpc(kEcho), "grpc-encoding", "gzip"), Frame(Gzip("again"), 1)).data,
            Frame("again"));
}

TEST_F(GrpcServerTest, BombIsStoppedAtTheLimit) {
  GrpcServerOptions options;
  options.max_receive_bytes = 1 << 20;
  Serve(options);
  H2Client client(port());
  const Headers headers = With(H2Client::Grpc(kEcho), "grpc-encoding", "gzip");
  EXPECT_EQ(client.Call(headers, Frame(Gzip(std::string(1 << 20, '0')), 1)).status(), "0");
  EXPECT_EQ(client.Call(headers, Frame(Gzip(std::string((1 << 20) + 1, '0')), 1)).status(), "8");
  EXPECT_EQ(client.Call(headers, Frame(Gzip(std::string(200 << 20, '0')), 1)).status(), "8");
}

TEST_F(GrpcServerTest, BrokenGzipIsAnError) {
  Serve();
  H2Client client(port());
  const Headers headers = With(H2Client::Grpc(kEcho), "grpc-encoding", "gzip");
  const std::string packed = Gzip("some text that is long enough");
  EXPECT_EQ(client.Call(headers, Frame("no gzip at all", 1)).status(), "13");
  EXPECT_EQ(client.Call(headers, Frame("", 1)).status(), "13");
  EXPECT_EQ(client.Call(headers, Frame(packed.substr(0, packed.size() - 9), 1)).status(), "13");
  EXPECT_EQ(client.Call(headers, Frame(packed + packed, 1)).status(), "13");
  EXPECT_EQ(service.calls, 0);
}

// ---- deadlines and cancellation ----

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

// The test's clock stands still until it is told to go on.
TEST_F(GrpcServerTest, AfterARefusalInputIsGatheredForAMoment) {
  Serve({}, &clock);
  H2Client client(port());
  EXPECT_EQ(client.Call("/t/Refuse", "x").status(), "8");
  const int32_t first = client.Start(H2Client::Grpc("/t/Echo"), Frame("first"));
  const int32_t second = client.Start(H2Client::Grpc("/t/Refuse"), Frame("second"));
  H2Client other(port());
  EXPECT_EQ(other.Call("/t/Echo", "others are read").message(), "others are read");
  EXPECT_EQ(service.calls, 2);
  Advance(Connection::kGatherNs);
  EXPECT_EQ(client.Wait(first).message(), "first");
  EXPECT_EQ(client.Wait(second).status(), "8");
  EXPECT_EQ(service.calls, 4);
  const int32_t third = client.Start(H2Client::Grpc("/t/Echo"), Frame("third"));
  EXPECT_EQ(other.Call("/t/Echo", "as ever").message(), "as ever");
  EXPECT_EQ(service.calls, 5) << "refused again, gathered again";
  Advance(Connection::kGatherNs);
  EXPECT_EQ(client.Wait(third).message(), "third");
  EXPECT_EQ(client.Call("/t/Echo", "at once").message(), "at once") << "nothing was refused";
}

TEST_F(GrpcServerTest, NothingComesWhileInputIsGathered_TheNextIsReadAtOnce) {
  Serve({}, &clock);
  H2Client client(port());
  EXPECT_EQ(client.Call("/t/Refuse", "x").status(), "8");
  EXPECT_TRUE(client.RunUntil([&] { return client.greeted; }));
  Advance(Connection::kGatherNs);
  EXPECT_EQ(client.Call("/t/Echo", "y").message(), "y");
}

TEST_F(GrpcServerTest, WhoLeavesWhileInputIsGatheredIsNoticed) {
  Serve({}, &clock);
  {
    H2Client client(port());
    EXPECT_EQ(client.Call("/t/Refuse", "x").status(), "8");
    EXPECT_EQ(connections(), 1u);
  }
  Advance(Connection::kGatherNs);
  EXPECT_TRUE(Eventually([&] { return connections() == 0; }));
}

TEST_F(GrpcServerTest, DestroyedServerForgetsGatheredInput) {
  Serve({}, &clock);
  H2Client client(port());
  EXPECT_EQ(client.Call("/t/Refuse", "x").status(), "8");
  OnLoop([&] { server.reset(); });
  Advance(Connection::kGatherNs);
  EXPECT_FALSE(client.RunUntil([] { return false; }));
  EXPECT_TRUE(client.ended);
}

TEST_F(GrpcServerTest, ACallRefusedAtItsHeadersNeedsNoMessage) {
  GrpcServerOptions options;
  options.bytes_in_flight = std::make_shared<ByteBudget>(1 << 20);
  Serve(options);
  H2Client client(port());
  const std::string half = Frame(std::string(100'000, 'h')).substr(0, 50'000);
  const int32_t id = client.Start(H2Client::Grpc("/t/Full"), half, false);
  EXPECT_EQ(client.Wait(id).status(), "8");
  EXPECT_EQ(client.response(id).error_code, 0u) << "the rest is not wanted, and that is no error";
  EXPECT_EQ(client.Call("/t/Full", "whole").status(), "8");
  EXPECT_EQ(service.calls, 0);
  EXPECT_EQ(options.bytes_in_flight->used(), 0u);
  EXPECT_EQ(client.Call("/t/Echo", "x").message(), "x");
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
