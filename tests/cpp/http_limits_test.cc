// What one client may take of the server: memory, time, connections.
#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <string>
#include <thread>

#include "base/clock.h"
#include "http_server_fixture.h"

namespace msserving {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;
using testing::HttpServerTest;
using testing::kLarge;

TEST_F(HttpServerTest, AtMostMaxPipelinedAreReadAndAllAreAnswered) {
  HttpServerOptions options;
  options.max_pipelined = 4;
  Start(options);
  HttpClient client(port_);
  std::string requests;
  for (int i = 0; i < 50; ++i) {
    requests += HttpClient::Post("/late", std::to_string(i));
  }
  client.Send(requests);
  for (int answered = 0; answered < 50;) {
    ASSERT_TRUE(Eventually([&] { return !service_.waiting.empty(); }));
    thread_.Do([&] {
      EXPECT_LE(service_.waiting.size(), 4U);
      service_.AnswerAll();
      answered = service_.requests;
    });
  }
  for (int i = 0; i < 50; ++i) {
    ASSERT_EQ(client.Read().body, "POST /late||" + std::to_string(i));
  }
}

TEST_F(HttpServerTest, BodiesInFlightAreBounded) {
  HttpServerOptions options;
  options.max_body_bytes = 100'000;
  Start(options);
  HttpClient client(port_);
  const std::string body(60'000, 'x');
  std::string requests;
  for (int i = 0; i < 6; ++i) {
    requests += HttpClient::Post("/late", body);
  }
  std::thread sender([&] { client.Send(requests); });
  for (int answered = 0; answered < 6;) {
    ASSERT_TRUE(Eventually([&] { return service_.waiting.size() == 2; }));
    std::this_thread::sleep_for(milliseconds(20));
    thread_.Do([&] {
      EXPECT_EQ(service_.waiting.size(), 2U);
      service_.AnswerAll();
      answered = service_.requests;
    });
  }
  for (int i = 0; i < 6; ++i) {
    EXPECT_EQ(client.Read().body.size(), body.size() + 12);
  }
  sender.join();
}

TEST_F(HttpServerTest, ARequestThatNeverEndsIs408) {
  HttpServerOptions options;
  options.incomplete_timeout_ns = 200 * kNanosPerMilli;
  Start(options);
  HttpClient slow(port_);
  const auto begin = steady_clock::now();
  slow.Send("POST /echo HTTP/1.1\r\n");
  while (!slow.HasInput(20) && steady_clock::now() - begin < std::chrono::seconds(5)) {
    slow.Send("A: b\r\n");  // progress does not help
  }
  EXPECT_EQ(slow.Read().status, 408);
  EXPECT_TRUE(slow.AtEnd());
  EXPECT_GE(steady_clock::now() - begin, milliseconds(200));

  HttpClient waits(port_);  // the service's time is not the client's
  waits.Send(HttpClient::Post("/late", "1"));
  EXPECT_FALSE(waits.HasInput(600));
  thread_.Do([&] { service_.AnswerAll(); });
  EXPECT_EQ(waits.Read().status, 200);
}

TEST_F(HttpServerTest, IdleConnectionsAreClosed) {
  HttpServerOptions options;
  options.idle_timeout_ns = 200 * kNanosPerMilli;
  Start(options);
  HttpClient silent(port_);
  HttpClient client(port_);
  EXPECT_EQ(client.Call(HttpClient::Post("/echo", "x")).status, 200);
  EXPECT_TRUE(silent.AtEnd());
  EXPECT_TRUE(client.AtEnd());
  EXPECT_TRUE(Eventually([&] { return server_->connections() == 0; }));
}

TEST_F(HttpServerTest, AClientThatDoesNotReadIsClosed) {
  HttpServerOptions options;
  options.slow_reader_timeout_ns = kNanosPerSecond;
  Start(options);
  HttpClient client(port_);
  // Each request is small enough to be complete in time; together their replies are more than the sockets hold.
  const std::string body(64 << 10, 'x');
  std::thread sender([&] {
    for (int i = 0; i < 1024 && client.Send(HttpClient::Post("/echo", body)); ++i) {
    }
  });
  EXPECT_TRUE(Eventually([&] { return service_.requests > 0; }));
  EXPECT_TRUE(Eventually([&] { return server_->connections() == 0; }));
  sender.join();
}

TEST_F(HttpServerTest, BytesInFlightAreBoundedForAllRequestsTogether) {
  HttpServerOptions options;
  options.bytes_in_flight = std::make_shared<ByteBudget>(10'000);
  Start(options);
  HttpClient holds(port_);
  holds.Send(HttpClient::Post("/late", std::string(8000, 'h')));
  ASSERT_TRUE(Waiting(1));
  {
    HttpClient refused(port_);
    const HttpReply reply = refused.Call(HttpClient::Post("/echo", std::string(4000, 'x')));
    EXPECT_EQ(reply.status, 429);
    EXPECT_EQ(reply.headers.at("Retry-After"), "1");
    EXPECT_NE(reply.body.find("bytes in flight exceed the limit 10000"), std::string::npos) << reply.body;
    EXPECT_TRUE(refused.AtEnd());
  }
  HttpClient small(port_);
  EXPECT_EQ(small.Call(HttpClient::Post("/echo", std::string(1000, 'x'))).status, 200);
  thread_.Do([&] { service_.AnswerAll(); });
  EXPECT_EQ(holds.Read().status, 200);
  EXPECT_EQ(small.Call(HttpClient::Post("/echo", std::string(4000, 'x'))).status, 200);
  small.Send("POST /echo HTTP/1.1\r\nContent-Length: 9000\r\n\r\n" + std::string(8000, 'u'));
  ASSERT_TRUE(Eventually([&] { return options.bytes_in_flight->used() == 8000; }));
  small.Abort();  // what a request leaves half received is given back
  EXPECT_TRUE(Eventually([&] { return options.bytes_in_flight->used() == 0; }));
}

TEST_F(HttpServerTest, RepliesCountUntilTheyAreSent) {
  HttpServerOptions options;
  options.bytes_in_flight = std::make_shared<ByteBudget>(64 << 20);
  Start(options);
  HttpClient client(port_);
  const std::string body(20 << 20, 'r');
  client.Send(HttpClient::Post("/echo", body));
  // Nobody reads: what the sockets do not hold stays in flight.
  ASSERT_TRUE(Eventually([&] { return service_.requests == 1 && options.bytes_in_flight->used() > (10 << 20); }));
  EXPECT_EQ(client.Read().status, 200);
  EXPECT_TRUE(Eventually([&] { return options.bytes_in_flight->used() == 0; }));
}

TEST_F(HttpServerTest, WhoNeverReadsHoldsItsShareAlone) {
  HttpServerOptions options;
  options.bytes_in_flight = std::make_shared<ByteBudget>(64 << 20);
  Start(options);
  HttpClient greedy(port_);
  constexpr int kRequests = 12;
  std::string requests;
  for (int i = 0; i < kRequests; ++i) {
    requests += "GET /large HTTP/1.1\r\n\r\n";
  }
  greedy.Send(requests);
  ASSERT_TRUE(Eventually([&] { return service_.requests >= 2; }));
  HttpClient other(port_);
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(other.Call(HttpClient::Post("/echo", std::string(1 << 20, 'x'))).status, 200);
  }
  thread_.Do([&] {
    EXPECT_LT(service_.requests - 20, kRequests / 2) << "read when those before have left";
    EXPECT_LT(options.bytes_in_flight->used(), (16 << 20) + kLarge);
  });
  for (int i = 0; i < kRequests; ++i) {
    EXPECT_EQ(greedy.Read().body.size(), kLarge) << i;
  }
  EXPECT_TRUE(Eventually([&] { return options.bytes_in_flight->used() == 0; }));
}

TEST_F(HttpServerTest, TooManyConnectionsAreTold) {
  HttpServerOptions options;
  options.max_connections = 2;
  Start(options);
  HttpClient first(port_);
  auto second = std::make_unique<HttpClient>(port_);
  ASSERT_TRUE(Eventually([&] { return server_->connections() == 2; }));
  {
    HttpClient third(port_);
    const HttpReply reply = third.Call(HttpClient::Post("/echo", "x"));
    EXPECT_EQ(reply.status, 503);
    EXPECT_TRUE(third.AtEnd());
  }
  EXPECT_EQ(first.Call(HttpClient::Post("/echo", "x")).status, 200);
  second.reset();
  ASSERT_TRUE(Eventually([&] { return server_->connections() == 1; }));
  HttpClient fourth(port_);
  EXPECT_EQ(fourth.Call(HttpClient::Post("/echo", "x")).status, 200);
}

}  // namespace
}  // namespace msserving
