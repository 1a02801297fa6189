// What is taken for a request, however its bytes come, and what is refused.
#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <thread>

#include "http_server_fixture.h"

namespace msserving {
namespace {

using std::chrono::milliseconds;
using testing::HttpServerTest;

TEST_F(HttpServerTest, ByteAtATimeIsTheSame) {
  Start();
  HttpClient client(port_);
  const std::string chunked =
      "POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\ncontent-TYPE: "
      "text/x\r\n\r\n3\r\nabc\r\n5;x=y\r\ndefgh\r\n0\r\n"
      "Trailer: t\r\n\r\n";
  for (const char c : HttpClient::Post("/echo", "0123456789", "Content-Type: application/json\r\n") + chunked) {
    ASSERT_TRUE(client.Send({&c, 1}));
  }
  EXPECT_EQ(client.Read().body, "POST /echo|application/json|0123456789");
  EXPECT_EQ(client.Read().body, "POST /a|text/x|abcdefgh");
}

TEST_F(HttpServerTest, EveryCutOfAPipelineIsTheSame) {
  Start();
  const std::string requests = HttpClient::Post("/1", "one") +
                               "POST /2 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nto\r\n0\r\n\r\n" +
                               "GET /3 HTTP/1.1\r\n\r\n";
  for (size_t cut = 1; cut < requests.size(); ++cut) {
    HttpClient client(port_);
    client.Send(std::string_view(requests).substr(0, cut));
    if (cut % 16 == 0) {
      std::this_thread::sleep_for(milliseconds(1));
    }
    client.Send(std::string_view(requests).substr(cut));
    ASSERT_EQ(client.Read().body, "POST /1||one") << cut;
    ASSERT_EQ(client.Read().body, "POST /2||to") << cut;
    ASSERT_EQ(client.Read().body, "GET /3||") << cut;
  }
}

TEST_F(HttpServerTest, OtherVerbsReachTheServiceAndHeadHasNoBody) {
  Start();
  HttpClient client(port_);
  for (const char* verb : {"GET", "PUT", "DELETE", "PATCH", "OPTIONS"}) {
    EXPECT_EQ(client.Call(std::string(verb) + " /echo HTTP/1.1\r\nHost: h\r\n\r\n").body,
              std::string(verb) + " /echo||");
  }
  const HttpReply head = client.Call("HEAD /echo HTTP/1.1\r\nHost: h\r\n\r\n", true);
  EXPECT_EQ(head.headers.at("Content-Length"), "12");
  EXPECT_EQ(client.Call("GET /echo HTTP/1.1\r\nHost: h\r\n\r\n").body, "GET /echo||");
}

TEST_F(HttpServerTest, ExpectContinueIsAnsweredBeforeTheBody) {
  Start();
  HttpClient client(port_);
  client.Send("POST /late HTTP/1.1\r\nContent-Length: 1\r\n\r\nx");
  client.Send("POST /echo HTTP/1.1\r\nContent-Length: 4\r\nExpect: 100-Continue\r\n\r\n");
  ASSERT_TRUE(Waiting(1));
  EXPECT_FALSE(client.HasInput(50));  // the first request's reply comes first
  thread_.Do([&] { service_.AnswerAll(); });
  EXPECT_EQ(client.Read().body, "POST /late||x");
  EXPECT_EQ(client.Read().status, 100);
  client.Send("body");
  EXPECT_EQ(client.Read().body, "POST /echo||body");
  // Who does not wait gets no 100.
  EXPECT_EQ(client.Call(HttpClient::Post("/echo", "now", "Expect: 100-continue\r\n")).body, "POST /echo||now");
  EXPECT_EQ(client.Call("GET /echo HTTP/1.1\r\nExpect: 100-continue\r\n\r\n").status, 200);
}

TEST_F(HttpServerTest, OtherExpectationsFail) {
  Start();
  HttpClient client(port_);
  const HttpReply reply = client.Call("POST /echo HTTP/1.1\r\nContent-Length: 4\r\nExpect: wonders\r\n\r\n");
  EXPECT_EQ(reply.status, 417);
  EXPECT_EQ(reply.headers.at("Connection"), "close");
  EXPECT_TRUE(client.AtEnd());
}

TEST_F(HttpServerTest, TooLargeIsRefusedBeforeItArrives) {
  HttpServerOptions options;
  options.max_body_bytes = 1000;
  Start(options);
  {
    HttpClient client(port_);
    EXPECT_EQ(client.Call(HttpClient::Post("/echo", std::string(1000, 'x'))).status, 200);
    const HttpReply reply = client.Call("POST /echo HTTP/1.1\r\nContent-Length: 1001\r\n\r\n");
    EXPECT_EQ(reply.status, 413);
    EXPECT_EQ(reply.reason, "Content Too Large");
    EXPECT_EQ(reply.headers.at("Content-Type"), "application/json");
    EXPECT_EQ(reply.body, "error 413: http message is bigger than 1000 bytes");
    EXPECT_TRUE(client.AtEnd());
  }
  for (const char* length : {"99999999999999999", "18446744073709551615"}) {
    HttpClient client(port_);
    EXPECT_EQ(client.Call("POST /echo HTTP/1.1\r\nContent-Length: " + std::string(length) + "\r\n\r\n").status, 413);
  }
  HttpClient client(port_);
  client.Send("POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1f4\r\n" + std::string(500, 'x') + "\r\n");
  client.Send("1f4\r\n" + std::string(500, 'x') + "\r\n");
  EXPECT_FALSE(client.HasInput(50));
  client.Send("1\r\nx\r\n");
  EXPECT_EQ(client.Read().status, 413);
  EXPECT_TRUE(client.AtEnd());
}

TEST_F(HttpServerTest, HeadersAreBounded) {
  HttpServerOptions options;
  options.max_header_bytes = 1000;
  Start(options);
  const std::string kRequests[] = {
      "GET /" + std::string(1000, 'x') + " HTTP/1.1\r\n\r\n",
      "GET / HTTP/1.1\r\nA: " + std::string(1000, 'x') + "\r\n\r\n",
      "GET / HTTP/1.1\r\n" + std::string(1000, 'x') + ": a\r\n\r\n",
      "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: " + std::string(1000, 'x') + "\r\n\r\n",
  };
  for (const std::string& request : kRequests) {
    HttpClient client(port_);
    const HttpReply reply = client.Call(request);
    EXPECT_EQ(reply.status, 431) << request.substr(0, 20);
    EXPECT_TRUE(client.AtEnd());
  }
  HttpClient client(port_);
  client.Send("GET / HTTP/1.1\r\n");
  std::string header = "A: b\r\n";
  while (client.Send(header) && !client.HasInput(1)) {
    header += header;  // until it is told to stop
    ASSERT_LT(header.size(), 10'000'000U);
  }
  EXPECT_EQ(client.Read().status, 431);
}

TEST_F(HttpServerTest, SpacesBeforeAValueCountAsHeaders) {
  HttpServerOptions options;
  options.max_header_bytes = 1000;
  Start(options);
  HttpClient client(port_);
  client.Send("GET / HTTP/1.1\r\nA:");
  for (int i = 0; i < 200 && !client.HasInput(1); ++i) {
    client.Send(std::string(100, ' '));
  }
  EXPECT_EQ(client.Read().status, 431);
}

TEST_F(HttpServerTest, HeadersCountOnceHoweverTheyCome) {
  HttpServerOptions options;
  options.max_header_bytes = 1000;
  Start(options);
  for (const size_t value : {1, 500}) {  // many small headers, and few large ones
    std::string headers;
    for (int i = 0; headers.size() + value < 650; ++i) {
      headers += "h" + std::to_string(i) + ": " + std::string(value, 'v') + "\r\n";
    }
    HttpClient client(port_);
    for (const char c : "GET /small HTTP/1.1\r\n" + headers + "\r\n") {
      ASSERT_TRUE(client.Send({&c, 1}));
      thread_.Do([] {});  // a wake-up that reads it alone
    }
    const HttpReply reply = client.Read();
    EXPECT_EQ(reply.status, 200) << reply.body;
  }
  HttpClient client(port_);
  std::string large = "GET / HTTP/1.1\r\n";
  for (int i = 0; large.size() < 1040; ++i) {
    large += "h" + std::to_string(i) + ": v\r\n";
  }
  for (size_t i = 0; i < large.size() && (i < 990 || !client.HasInput(1)); ++i) {
    client.Send({&large[i], 1});
    thread_.Do([] {});
  }
  EXPECT_EQ(client.Read().status, 431);
}

TEST_F(HttpServerTest, BodiesBetweenTheHeadersOfAPipelineDoNotCountAsHeaders) {
  HttpServerOptions options;
  options.max_header_bytes = 1000;
  Start(options);
  HttpClient client(port_);
  const std::string first = HttpClient::Post("/1", "one");
  const std::string middle = HttpClient::Post("/2", std::string(2000, 'b'));
  const std::string last = "GET /3 HTTP/1.1\r\nHost: test\r\n\r\n";
  EXPECT_EQ(client.Call("GET /0 HTTP/1.1\r\n\r\n" + first.substr(0, 30)).body, "GET /0||");
  client.Send(first.substr(30) + middle + last.substr(0, 20));
  EXPECT_EQ(client.Read().body, "POST /1||one");
  EXPECT_EQ(client.Read().body, "POST /2||" + std::string(2000, 'b'));
  client.Send(last.substr(20));
  EXPECT_EQ(client.Read().body, "GET /3||");
}

TEST_F(HttpServerTest, AmbiguousLengthsAndBadSyntaxAre400) {
  Start();
  for (const char* request :
       {"POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        "POST / HTTP/1.1\r\nContent-Length: 3, 3\r\n\r\nabc", "POST / HTTP/1.1\r\nContent-Length: +3\r\n\r\nabc",
        "POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "POST / HTTP/1.1\r\nA : b\r\n\r\n",
        "POST / HTTP/1.1\r\nA: b\n\n", "POST / HTTP/1.1\r\nA: b\r\n folded\rx\r\n\r\n", "garbage\r\n\r\n",
        "POST / HTTP/9.9\r\n\r\n", "POST /\r\n\r\n", "\x16\x03\x01 tls", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"}) {
    HttpClient client(port_);
    const HttpReply reply = client.Call(request);
    EXPECT_EQ(reply.status, 400) << request;
    EXPECT_EQ(reply.body.find("error 400: bad HTTP request: "), 0U) << reply.body;
    EXPECT_TRUE(client.AtEnd()) << request;
  }
  thread_.Do([&] { EXPECT_EQ(service_.requests, 0); });
}

TEST_F(HttpServerTest, AnErrorComesAfterTheRepliesBeforeIt) {
  Start();
  HttpClient client(port_);
  client.Send(HttpClient::Post("/late", "1") + "garbage\r\n\r\n");
  ASSERT_TRUE(Waiting(1));
  EXPECT_FALSE(client.HasInput(50));
  thread_.Do([&] { service_.AnswerAll(); });
  EXPECT_EQ(client.Read().body, "POST /late||1");
  EXPECT_EQ(client.Read().status, 400);
  EXPECT_TRUE(client.AtEnd());
}

TEST_F(HttpServerTest, RequestsToSwitchProtocolsAreAnsweredInThisOne) {
  Start();
  HttpClient client(port_);
  const std::string upgrade = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n";
  EXPECT_EQ(client.Call("GET /echo HTTP/1.1\r\n" + upgrade + "\r\n").body, "GET /echo||");
  EXPECT_EQ(client.Call(HttpClient::Post("/echo", "x", upgrade)).body, "POST /echo||x");
  EXPECT_EQ(client.Call("CONNECT a:1 HTTP/1.1\r\n\r\n").body, "CONNECT a:1||");
}

}  // namespace
}  // namespace msserving
