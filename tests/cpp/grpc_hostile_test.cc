// Clients that a public server meets: each of these must get no further than its own connection.
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "grpc_server_fixture.h"

namespace msserving {
namespace {

using testing::Frame;
using testing::GrpcServerTest;
using testing::H2Client;
using testing::Headers;
using testing::kMagic;
using testing::RawFrame;

const std::string kEcho = "/t/Echo";
constexpr uint32_t kEnhanceYourCalm = 11;

class GrpcHostileTest : public GrpcServerTest {
 protected:
  // What every test ends with: others are served as ever.
  void ExpectOthersAreServed() {
    H2Client other(port());
    EXPECT_EQ(other.Call(kEcho, "still here").message(), "still here");
  }

  // True if the server ends this connection.
  static bool IsEnded(H2Client* client) {
    client->RunUntil([] { return false; });
    return client->ended;
  }

  // Sends `frames` again and again until the server hangs up; at most `rounds` times.
  static bool Flood(H2Client* client, const std::string& frames, int rounds) {
    for (int i = 0; i < rounds; ++i) {
      if (!client->SendRaw(frames)) {
        return true;
      }
      client->RunUntil([] { return false; }, 0);
      if (client->goaways > 0 || client->ended) {
        return true;
      }
    }
    return client->RunUntil([&] { return client->goaways > 0; }, 2000) || client->ended;
  }

  static std::string Repeat(const std::string& text, int times) {
    std::string all;
    for (int i = 0; i < times; ++i) {
      all += text;
    }
    return all;
  }
};

TEST_F(GrpcHostileTest, GarbageEndsItsConnection) {
  Serve();
  for (const std::string& bytes :
       {std::string("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), std::string(100'000, 'A'), std::string(1000, '\0'),
        std::string("\x16\x03\x01\x02", 4) + std::string(600, 'x')}) {
    H2Client client(port(), 65535, false);
    client.SendRaw(bytes);
    EXPECT_TRUE(IsEnded(&client));
  }
  ExpectOthersAreServed();
}

TEST_F(GrpcHostileTest, RandomFramesNeverHarmOthers) {
  Serve();
  std::mt19937 random(7);
  for (int round = 0; round < 200; ++round) {
    std::string bytes(kMagic);
    bytes += RawFrame(NGHTTP2_SETTINGS, 0, 0, "");
    for (int i = 0; i < 20; ++i) {
      std::string payload(random() % 40, '\0');
      for (char& c : payload) {
        c = static_cast<char>(random());
      }
      bytes += RawFrame(static_cast<uint8_t>(random() % 12), static_cast<uint8_t>(random()), random() % 8, payload);
    }
    H2Client client(port(), 65535, false);
    client.SendRaw(bytes);
    client.RunUntil([] { return false; }, 1);
  }
  EXPECT_TRUE(Eventually([&] { return connections() == 0; }));
  EXPECT_EQ(calls(), 0u);
  ExpectOthersAreServed();
}

TEST_F(GrpcHostileTest, PingFloodIsCalmedAndPingsOfRealClientsAreNot) {
  Serve();
  H2Client client(port());
  const std::string ping = RawFrame(NGHTTP2_PING, 0, 0, "12345678");
  for (int i = 0; i < 300; ++i) {
    client.SendRaw(ping);
  }
  ASSERT_TRUE(client.RunUntil([&] { return client.ping_acks == 300; }));
  EXPECT_EQ(client.goaways, 0);
  EXPECT_TRUE(Flood(&client, Repeat(ping, 100), 1000));
  EXPECT_EQ(client.goaway_error, kEnhanceYourCalm);
  EXPECT_TRUE(IsEnded(&client));
  ExpectOthersAreServed();
}

TEST_F(GrpcHostileTest, PingsThatComeWithCallsAreNoFlood) {
  Serve();
  H2Client client(port());
  const std::string ping = RawFrame(NGHTTP2_PING, 0, 0, "12345678");
  for (int i = 0; i < 3000; ++i) {
    client.SendRaw(ping);
    ASSERT_EQ(client.Call(kEcho, "x").status(), "0") << i;
  }
  EXPECT_EQ(client.goaways, 0);
}

TEST_F(GrpcHostileTest, FloodsOfOtherCheapFramesAreCalmed) {
  Serve();
  {
    H2Client client(port());
    EXPECT_TRUE(Flood(&client, Repeat(RawFrame(NGHTTP2_SETTINGS, 0, 0, ""), 100), 1000));
    EXPECT_TRUE(IsEnded(&client));
  }
  H2Client client(port());
  const int32_t id = client.Start(H2Client::Grpc(kEcho), std::string(1, '\0'), false);
  const std::string empty = RawFrame(NGHTTP2_DATA, 0, static_cast<uint32_t>(id), "");
  EXPECT_TRUE(Flood(&client, Repeat(empty, 100), 1000));
  EXPECT_EQ(client.goaway_error, kEnhanceYourCalm);
  ExpectOthersAreServed();
}

// What it sends after that is not looked at, so nothing else would end it.
TEST_F(GrpcHostileTest, AConnectionWhoseClientSaidGoodbyeEnds) {
  Serve();
  H2Client client(port());
  const std::string goodbye = RawFrame(NGHTTP2_GOAWAY, 0, 0, std::string(8, '\0'));
  ASSERT_TRUE(client.RunUntil([&] { return client.greeted; }));
  ASSERT_TRUE(client.SendRaw(goodbye));
  EXPECT_TRUE(client.RunUntil([&] { return client.ended; }, 10'000) || client.ended);

  // One that still waits for an answer gets it first.
  H2Client waiting(port());
  const int32_t id = waiting.Start(H2Client::Grpc("/t/Hold"), Frame("x"));
  ASSERT_TRUE(waiting.RunUntil([&] { return service.held == 1; }));
  ASSERT_TRUE(waiting.SendRaw(goodbye));
  H2Client(port()).Call("/t/Release", "");
  EXPECT_EQ(waiting.Wait(id).message(), "x");
  EXPECT_TRUE(waiting.RunUntil([&] { return waiting.ended; }, 10'000) || waiting.ended);
  ExpectOthersAreServed();
}

TEST_F(GrpcHostileTest, PingsThatAreNeverReadTakeNoMemory) {
  Serve();
  H2Client client(port());
  ASSERT_TRUE(client.RunUntil([&] { return client.greeted; }));
  const std::string pings = Repeat(RawFrame(NGHTTP2_PING, 0, 0, "12345678"), 1000);
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  bool hung_up = false;
  while (!hung_up && std::chrono::steady_clock::now() < until) {
    hung_up = !client.SendRaw(pings);
  }
  EXPECT_TRUE(hung_up);
  ExpectOthersAreServed();
}

TEST_F(GrpcHostileTest, RapidResetIsCalmed) {
  Serve();
  H2Client client(port());
  int sent = 0;
  while (client.goaways == 0 && !client.ended && sent < 100'000) {
    const int32_t id = client.Start(H2Client::Grpc("/t/Hold"), Frame("x"));
    client.Cancel(id);
    ++sent;
    if (sent % 100 == 0) {
      client.RunUntil([] { return false; }, 0);
    }
  }
  EXPECT_LT(sent, 100'000);
  EXPECT_GT(sent, 3000);  // that many deadlines may pass at once on an honest connection
  EXPECT_TRUE(Eventually([&] { return service.cancelled == service.held && connections() == 0; }));
  ExpectOthersAreServed();
}

TEST_F(GrpcHostileTest, TooManyHeadersAreRefused) {
  Serve();
  H2Client client(port());
  Headers headers = H2Client::Grpc(kEcho);
  for (int i = 0; i < 400; ++i) {
    headers.emplace_back("x-" + std::to_string(i), std::string(20, 'v'));
  }
  EXPECT_EQ(client.Call(headers, Frame("x")).status(), "8");
  EXPECT_EQ(client.response(1).header("grpc-message").find("Received headers larger than max"), 0u);
  EXPECT_EQ(client.Call(kEcho, "x").status(), "0");
  EXPECT_EQ(service.calls, 1);
}

// One header block that never ends, and one of a million headers by reference to the compression table.
TEST_F(GrpcHostileTest, EndlessHeaderBlocksEndTheConnection) {
  Serve();
  for (const std::string& block : {std::string(16'000, '\x82'), std::string(16'000, '\xbe'),
                                   std::string("\0\x01x\x01y", 5) + std::string(15'000, '\xbe')}) {
    H2Client client(port());
    std::string bytes = RawFrame(NGHTTP2_HEADERS, 0, 1, block);
    bool hung_up = !client.SendRaw(bytes);
    for (int i = 0; i < 70 && !hung_up; ++i) {
      hung_up = !client.SendRaw(RawFrame(NGHTTP2_CONTINUATION, 0, 1, block));
    }
    EXPECT_TRUE(hung_up || IsEnded(&client));
  }
  EXPECT_EQ(service.calls, 0);
  ExpectOthersAreServed();
}

TEST_F(GrpcHostileTest, StreamsBeyondTheLimitAreRefused) {
  GrpcServerOptions options;
  options.max_concurrent_streams = 10;
  Serve(options);
  H2Client client(port());
  std::vector<int32_t> ids;
  for (int i = 0; i < 30; ++i) {  // before the server's limit is known to the client
    ids.push_back(client.Start(H2Client::Grpc("/t/Hold"), Frame("x")));
  }
  ASSERT_TRUE(client.RunUntil([&] {
    int refused = 0;
    for (const int32_t id : ids) {
      refused += client.response(id).closed && client.response(id).error_code == NGHTTP2_REFUSED_STREAM ? 1 : 0;
    }
    return refused + service.held == 30;
  }));
  EXPECT_EQ(service.held, 10);
}

// Clients that have not heard of the limit yet.
TEST_F(GrpcHostileTest, FloodsOfRefusedStreamsAreCalmed) {
  GrpcServerOptions options;
  options.max_concurrent_streams = 1;
  options.max_resets_per_second = 10;
  Serve(options);
  H2Client client(port());
  for (int i = 0; i < 100; ++i) {
    client.Start(H2Client::Grpc("/t/Hold"), Frame("x"));
  }
  EXPECT_TRUE(client.RunUntil([&] { return client.goaways > 0; }));
  EXPECT_EQ(client.goaway_error, kEnhanceYourCalm);
  ExpectOthersAreServed();
}

// Its unread reply keeps the resets from being sent.
TEST_F(GrpcHostileTest, RefusalsThatAreNeverReadTakeNoMemory) {
  GrpcServerOptions options;
  options.max_concurrent_streams = 1;
  options.max_resets_per_second = 10;
  options.slow_reader_timeout_ns = 0;  // nothing else ends it
  Serve(options);
  H2Client client(port());
  client.Start(H2Client::Grpc("/t/Slices"), Frame("90000000"));
  ASSERT_TRUE(Eventually([&] { return service.calls == 1; }));
  for (int i = 0; i < 400; ++i) {
    OnLoop([] {});  // a wake-up, with another piece of the reply as long as the socket takes any
  }
  std::string flood;
  for (uint32_t id = 3; id < 40'000; id += 2) {
    flood += RawFrame(NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS | NGHTTP2_FLAG_END_STREAM, id, "\x83\x86\x84");
  }
  client.SendRaw(flood);
  EXPECT_TRUE(Eventually([&] { return connections() == 0; }));
  ExpectOthersAreServed();
}

TEST_F(GrpcHostileTest, ConnectionsBeyondTheLimitAreClosed) {
  GrpcServerOptions options;
  options.max_connections = 3;
  Serve(options);
  std::vector<std::unique_ptr<H2Client>> clients;
  for (int i = 0; i < 3; ++i) {
    clients.push_back(std::make_unique<H2Client>(port()));
    ASSERT_EQ(clients.back()->Call(kEcho, "x").status(), "0");
  }
  {
    H2Client refused(port());
    EXPECT_TRUE(IsEnded(&refused));
    EXPECT_FALSE(refused.greeted);
  }
  clients.pop_back();
  ASSERT_TRUE(Eventually([&] { return connections() == 2; }));
  ExpectOthersAreServed();
}

TEST_F(GrpcHostileTest, HalfARequestIsAnsweredInTime) {
  GrpcServerOptions options;
  options.incomplete_timeout_ns = 10 * kNanosPerSecond;
  Serve(options, &clock);
  H2Client client(port());
  const int32_t id = client.Start(H2Client::Grpc(kEcho), Frame("abc").substr(0, 6), false);
  ASSERT_EQ(client.Call(kEcho, "x").status(), "0");
  for (int i = 0; i < 3; ++i) {
    Advance(3 * kNanosPerSecond);
  }
  EXPECT_EQ(client.Call(kEcho, "x").status(), "0");
  EXPECT_FALSE(client.response(id).closed);
  Advance(3 * kNanosPerSecond);
  EXPECT_EQ(client.Wait(id).status(), "4");
  EXPECT_EQ(client.Call(kEcho, "x").status(), "0");
}

TEST_F(GrpcHostileTest, ConnectionThatNeverSpeaksIsClosed) {
  GrpcServerOptions options;
  options.incomplete_timeout_ns = 10 * kNanosPerSecond;
  Serve(options, &clock);
  H2Client silent(port(), 65535, false);
  H2Client half(port(), 65535, false);
  half.SendRaw(kMagic.substr(0, 10));
  H2Client greeted(port());
  ASSERT_TRUE(greeted.RunUntil([&] { return greeted.greeted; }));
  ASSERT_EQ(greeted.Call(kEcho, "x").status(), "0");
  ASSERT_TRUE(Eventually([&] { return connections() == 3; }));
  for (int i = 0; i < 5; ++i) {
    Advance(3 * kNanosPerSecond);
  }
  EXPECT_TRUE(IsEnded(&silent));
  EXPECT_TRUE(IsEnded(&half));
  EXPECT_EQ(greeted.Call(kEcho, "x").status(), "0");
}

TEST_F(GrpcHostileTest, IdleConnectionIsClosedOnlyIfAskedFor) {
  GrpcServerOptions options;
  options.idle_timeout_ns = 10 * kNanosPerSecond;
  Serve(options, &clock);
  H2Client idle(port());
  H2Client busy(port());
  ASSERT_EQ(idle.Call(kEcho, "x").status(), "0");
  const int32_t id = busy.Start(H2Client::Grpc("/t/Hold"), Frame("x"));
  ASSERT_TRUE(busy.RunUntil([&] { return service.held == 1; }));
  for (int i = 0; i < 5; ++i) {
    Advance(3 * kNanosPerSecond);
  }
  EXPECT_TRUE(IsEnded(&idle));
  EXPECT_EQ(idle.goaway_error, 0u);
  OnLoop([&] { service.ReleaseAll(); });
  EXPECT_EQ(busy.Wait(id).status(), "0");
}

TEST_F(GrpcHostileTest, ReaderThatNeverOpensItsWindowLosesTheReply) {
  GrpcServerOptions options;
  options.slow_reader_timeout_ns = 10 * kNanosPerSecond;
  Serve(options, &clock);
  H2Client client(port(), 0);
  const int32_t id = client.Start(H2Client::Grpc("/t/Slices"), Frame("100000"));
  ASSERT_TRUE(client.RunUntil([&] { return !client.response(id).headers.empty(); }));
  EXPECT_EQ(service.keepers_gone, 0);
  for (int i = 0; i < 5; ++i) {
    Advance(3 * kNanosPerSecond);
  }
  EXPECT_EQ(client.Wait(id).error_code, static_cast<uint32_t>(NGHTTP2_CANCEL));
  EXPECT_EQ(service.keepers_gone, 1);
  ExpectOthersAreServed();
}

TEST_F(GrpcHostileTest, ReaderThatNeverReadsLosesItsConnection) {
  GrpcServerOptions options;
  options.slow_reader_timeout_ns = 10 * kNanosPerSecond;
  Serve(options, &clock);
  H2Client client(port());
  client.Start(H2Client::Grpc("/t/Slices"), Frame("90000000"));
  ASSERT_TRUE(Eventually([&] { return service.calls == 1; }));
  EXPECT_TRUE(Eventually([&] {
    Advance(3 * kNanosPerSecond);  // what is written first begins the time anew
    return connections() == 0;
  }));
  EXPECT_EQ(service.keepers_gone, 1);
}

TEST_F(GrpcHostileTest, WhoNeverReadsHoldsItsShareAlone) {
  GrpcServerOptions options;
  options.bytes_in_flight = std::make_shared<ByteBudget>(1'000'000);
  Serve(options);
  const std::string piece(60'000, 'r');
  H2Client greedy(port(), 0);
  std::vector<int32_t> taken;
  for (int i = 0; i < 4; ++i) {
    taken.push_back(greedy.Start(H2Client::Grpc(kEcho), Frame(piece)));
    ASSERT_TRUE(greedy.RunUntil([&] { return service.calls == i + 1; }));
  }
  const int32_t slices = greedy.Start(H2Client::Grpc("/t/Slices"), Frame("9000"));
  EXPECT_EQ(greedy.RunUntil([&] { return service.calls == 5; }), true) << "a few bytes fit into a share of 250000";
  for (int i = 0; i < 20; ++i) {
    const testing::Response& refused = greedy.Call(kEcho, piece);
    EXPECT_EQ(refused.status(), "8");
    EXPECT_TRUE(
        refused.header("grpc-message").starts_with("bytes in flight of this connection exceed its share 250000"))
        << refused.header("grpc-message");
  }
  EXPECT_EQ(service.calls, 5);
  EXPECT_EQ(options.bytes_in_flight->used(), 4 * piece.size() + 9004) << "slices of other memory count, too";
  H2Client other(port());
  EXPECT_EQ(other.Call(kEcho, std::string(700'000, 'o')).status(), "0") << "alone, a message may pass the share";
  ExpectOthersAreServed();
  taken.push_back(slices);
  for (const int32_t id : taken) {
    nghttp2_session_set_local_window_size(greedy.session(), NGHTTP2_FLAG_NONE, id, 1 << 20);
    EXPECT_EQ(greedy.Wait(id).status(), "0");
  }
  EXPECT_TRUE(Eventually([&] { return options.bytes_in_flight->used() == 0; }));
}

}  // namespace
}  // namespace msserving
