#include "net/http_server.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <ctime>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "../support/http_client.h"
#include "../support/loop_thread.h"
#include "base/clock.h"
#include "net/compression.h"

namespace msserving {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr size_t kLarge = 8 << 20;

// "/large" answers with so many bytes, "/echo" answers at once, "/late" when the test says so, everything with
// "<method> <target>|<type>|<body>".
class TestService final : public HttpService {
 public:
  void OnRequest(HttpCall* call) override {
    ++requests;
    if (call->target() == "/late") {
      waiting.push_back(call);
      return;
    }
    Answer(call);
  }

  void OnCancelled(HttpCall* call) override {
    ++cancelled;
    std::erase(waiting, call);
  }

  std::string ErrorBody(int status, std::string_view reason) override {
    return "error " + std::to_string(status) + ": " + std::string(reason);
  }

  static void Answer(HttpCall* call) {
    OutgoingBody body;
    if (call->target() == "/large") {
      const std::string large(kLarge, 'l');
      body.encoded.Append(large.data(), large.size());
      call->Reply(200, "text/plain", std::move(body));
      return;
    }
    const std::string text =
        std::string(call->method()) + " " + std::string(call->target()) + "|" + std::string(call->content_type()) + "|";
    body.encoded.Append(text.data(), text.size());
    body.encoded.Append(call->body().data(), call->body().size());
    call->Reply(call->target() == "/extra" ? 405 : 200, "text/plain", std::move(body),
                call->target() == "/extra" ? "Allow: POST\r\n" : "");
  }

  // The latest first, so that order must be the server's doing.
  void AnswerAll() {
    while (!waiting.empty()) {
      HttpCall* call = waiting.back();
      waiting.pop_back();
      Answer(call);
    }
  }

  std::vector<HttpCall*> waiting;
  int requests = 0;
  int cancelled = 0;
};

class HttpServerTest : public testing::Test {
 protected:
  ~HttpServerTest() override {
    thread_.Do([&] {
      server_.reset();
      EXPECT_TRUE(service_.waiting.empty());
    });
  }

  void Start(HttpServerOptions options = {}) {
    UniqueFd socket = ListenAnywhere(&port_);
    thread_.Do([&] {
      server_ = std::make_unique<HttpServer>(&thread_.loop(), std::move(socket), options, &service_, nullptr);
    });
  }

  // What the loop's thread says, once it says what is hoped for or 10 s are over.
  template <class Function>
  bool Eventually(Function function) {
    const auto end = steady_clock::now() + std::chrono::seconds(10);
    for (bool good = false;; std::this_thread::sleep_for(milliseconds(2))) {
      thread_.Do([&] { good = function(); });
      if (good || steady_clock::now() > end) {
        return good;
      }
    }
  }

  bool Waiting(size_t count) {
    return Eventually([&] { return service_.waiting.size() == count; });
  }

  LoopThread thread_;
  TestService service_;
  std::unique_ptr<HttpServer> server_;
  int port_ = 0;
};

TEST_F(HttpServerTest, AnswersAndKeepsTheConnection) {
  Start();
  HttpClient client(port_);
  for (int i = 0; i < 3; ++i) {
    const HttpReply reply = client.Call(HttpClient::Post("/echo?x=1", "body", "Content-Type: application/json\r\n"));
    EXPECT_EQ(reply.status, 200);
    EXPECT_EQ(reply.reason, "OK");
    EXPECT_EQ(reply.headers.at("Content-Type"), "text/plain");
    EXPECT_FALSE(reply.headers.contains("Connection"));
    EXPECT_EQ(reply.body, "POST /echo?x=1|application/json|body");
  }
}

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

TEST_F(HttpServerTest, PipelinedRepliesComeInOrder) {
  Start();
  HttpClient client(port_);
  client.Send(HttpClient::Post("/late", "1") + HttpClient::Post("/echo", "2") + HttpClient::Post("/late", "3"));
  ASSERT_TRUE(Waiting(2));
  EXPECT_FALSE(client.HasInput(50));
  thread_.Do([&] { service_.AnswerAll(); });
  EXPECT_EQ(client.Read().body, "POST /late||1");
  EXPECT_EQ(client.Read().body, "POST /echo||2");
  EXPECT_EQ(client.Read().body, "POST /late||3");
}

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

TEST_F(HttpServerTest, ExtraHeadersAndReasons) {
  Start();
  HttpClient client(port_);
  const HttpReply reply = client.Call("GET /extra HTTP/1.1\r\nHost: h\r\n\r\n");
  EXPECT_EQ(reply.status, 405);
  EXPECT_EQ(reply.reason, "Method Not Allowed");
  EXPECT_EQ(reply.headers.at("Allow"), "POST");
}

TEST_F(HttpServerTest, ConnectionCloseAndHttp10) {
  Start();
  {
    HttpClient client(port_);
    const HttpReply reply = client.Call(HttpClient::Post("/echo", "x", "Connection: close\r\n") + "GET /more");
    EXPECT_EQ(reply.headers.at("Connection"), "close");
    EXPECT_EQ(reply.body, "POST /echo||x");
    EXPECT_TRUE(client.AtEnd());
  }
  {
    HttpClient client(port_);
    const HttpReply reply = client.Call("GET /echo HTTP/1.0\r\n\r\n");
    EXPECT_EQ(reply.headers.at("Connection"), "close");
    EXPECT_TRUE(client.AtEnd());
  }
  {
    HttpClient client(port_);
    const std::string request = "GET /echo HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    EXPECT_EQ(client.Call(request).headers.at("Connection"), "keep-alive");
    EXPECT_EQ(client.Call(request).status, 200);
  }
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

TEST_F(HttpServerTest, HalfClosedClientsGetTheirReplies) {
  Start();
  HttpClient client(port_);
  client.Send(HttpClient::Post("/late", "1") + HttpClient::Post("/echo", "2") + "POST /half HTTP/1.1\r\n");
  client.EndInput();
  ASSERT_TRUE(Waiting(1));
  thread_.Do([&] { service_.AnswerAll(); });
  EXPECT_EQ(client.Read().body, "POST /late||1");
  EXPECT_EQ(client.Read().body, "POST /echo||2");
  EXPECT_TRUE(client.AtEnd());
  EXPECT_TRUE(Eventually([&] { return server_->connections() == 0; }));
}

TEST_F(HttpServerTest, GoneClientsCancelTheirCalls) {
  Start();
  HttpClient client(port_);
  client.Send(HttpClient::Post("/late", "1") + HttpClient::Post("/late", "2"));
  ASSERT_TRUE(Waiting(2));
  thread_.Do([&] { EXPECT_EQ(server_->calls(), 2U); });
  client.Abort();
  EXPECT_TRUE(Eventually([&] { return service_.cancelled == 2 && server_->connections() == 0; }));
  thread_.Do([&] { EXPECT_EQ(server_->calls(), 0U); });
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

std::string Gzip(const std::string& plain) {
  Compression compression;
  Buffer packed;
  compression.BeginGzip(&packed, plain.size());
  compression.AddGzip({reinterpret_cast<const uint8_t*>(plain.data()), plain.size()});
  compression.EndGzip();
  return {packed.data(), packed.data() + packed.size()};
}

std::string Gunzip(const std::string& packed) {
  Compression compression;
  Buffer plain;
  EXPECT_EQ(compression.Inflate(Encoding::kGzip, {reinterpret_cast<const uint8_t*>(packed.data()), packed.size()},
                                size_t{1} << 30, &plain),
            Compression::Result::kOk);
  return {plain.data(), plain.data() + plain.size()};
}

TEST_F(HttpServerTest, GzipBodiesAreInflatedWithinTheLimit) {
  HttpServerOptions options;
  options.max_body_bytes = 100'000;
  Start(options);
  const std::string plain(100'000, 'z');
  const std::string gzip = "Content-Encoding: GZIP\r\n";
  HttpClient client(port_);
  EXPECT_EQ(client.Call(HttpClient::Post("/echo", Gzip(plain), gzip)).body, "POST /echo||" + plain);
  EXPECT_EQ(client.Call(HttpClient::Post("/echo", "", gzip)).body, "POST /echo||");
  EXPECT_EQ(client.Call(HttpClient::Post("/echo", "plain", "Content-Encoding: identity\r\n")).body,
            "POST /echo||plain");
  EXPECT_EQ(client.Call(HttpClient::Post("/echo", "next, without")).body, "POST /echo||next, without");
  const auto status = [&](const std::string& body, const std::string& header) {
    HttpClient one(port_);
    const int got = one.Call(HttpClient::Post("/echo", body, header)).status;
    EXPECT_TRUE(one.AtEnd());
    return got;
  };
  EXPECT_EQ(status(Gzip(plain + "z"), gzip), 413);
  EXPECT_EQ(status("no gzip", gzip), 400);
  EXPECT_EQ(status(Gzip(plain).substr(0, 50), gzip), 400);
  EXPECT_EQ(status(Gzip("a") + Gzip("b"), gzip), 400);
  EXPECT_EQ(status("x", "Content-Encoding: br\r\n"), 415);
  EXPECT_EQ(status("x", "Content-Encoding: gzip, gzip\r\n"), 415);
}

TEST_F(HttpServerTest, GzipBombsMeetTheBudget) {
  HttpServerOptions options;
  options.bytes_in_flight = std::make_shared<ByteBudget>(1 << 20);
  Start(options);
  HttpClient client(port_);
  EXPECT_EQ(
      client.Call(HttpClient::Post("/echo", Gzip(std::string(20 << 20, 'b')), "Content-Encoding: gzip\r\n")).status,
      429);
  EXPECT_TRUE(Eventually([&] { return options.bytes_in_flight->used() == 0; }));
}

TEST_F(HttpServerTest, RepliesAreGzipIfAskedForAndWorthwhile) {
  Start();
  HttpClient client(port_);
  const auto call = [&](size_t size, const std::string& accepts) {
    return client.Call(HttpClient::Post("/echo", std::string(size, 'r'), accepts));
  };
  const std::string accepts = "Accept-Encoding: deflate, gzip\r\n";
  const HttpReply packed = call(5000, accepts);
  EXPECT_EQ(packed.headers.at("Content-Encoding"), "gzip");
  EXPECT_EQ(packed.headers.at("Vary"), "Accept-Encoding");
  EXPECT_LT(packed.body.size(), 200U);
  EXPECT_EQ(Gunzip(packed.body), "POST /echo||" + std::string(5000, 'r'));
  EXPECT_TRUE(call(5000, "Accept-Encoding: gzip;q=0.5\r\n").headers.contains("Content-Encoding"));
  for (const char* plain :
       {"", "Accept-Encoding: br\r\n", "Accept-Encoding: gzip;q=0\r\n", "Accept-Encoding: br, gzip ; q=0.0\r\n"}) {
    EXPECT_FALSE(call(5000, plain).headers.contains("Content-Encoding")) << plain;
  }
  EXPECT_FALSE(call(500, accepts).headers.contains("Content-Encoding")) << "too small";
  EXPECT_FALSE(call(1 << 20, accepts).headers.contains("Content-Encoding")) << "too large";
}

TEST_F(HttpServerTest, RepliesHaveADateAndErrorsTheRequestId) {
  Start();
  HttpClient client(port_);
  const HttpReply good = client.Call(HttpClient::Post("/echo", "x", "X-Request-Id: mine\r\n"));
  tm date{};
  ASSERT_NE(strptime(good.headers.at("Date").c_str(), "%a, %d %b %Y %H:%M:%S GMT", &date), nullptr);
  EXPECT_LT(std::abs(timegm(&date) - WallClockSeconds()), 600);
  EXPECT_FALSE(good.headers.contains("X-Request-Id"));
  EXPECT_EQ(client.Call(HttpClient::Post("/extra", "x", "X-Request-Id: mine\r\n")).headers.at("X-Request-Id"), "mine");
  const std::string made = client.Call(HttpClient::Post("/extra", "x")).headers.at("X-Request-Id");
  EXPECT_EQ(made.size(), 16U);
  EXPECT_EQ(client.Call(HttpClient::Post("/extra", "x", "X-Request-Id: a b\r\n")).headers.at("X-Request-Id").size(),
            16U);
  const HttpReply rejected = client.Call("POST /echo HTTP/1.1\r\nX-Request-Id: of mine\r\nExpect: gold\r\n\r\n");
  EXPECT_EQ(rejected.status, 417);
  EXPECT_EQ(rejected.headers.at("X-Request-Id").size(), 16U);
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

TEST_F(HttpServerTest, DrainClosesIdleAndFinishesBusyConnections) {
  Start();
  HttpClient idle(port_);
  HttpClient busy(port_);
  HttpClient begun(port_);
  EXPECT_EQ(idle.Call(HttpClient::Post("/echo", "x")).status, 200);
  busy.Send(HttpClient::Post("/late", "1") + HttpClient::Post("/late", "2"));
  begun.Send("POST /echo HTTP/1.1\r\nContent-Length: 2\r\n\r\nh");
  ASSERT_TRUE(Waiting(2));
  ASSERT_TRUE(Eventually([&] { return server_->connections() == 3; }));
  std::this_thread::sleep_for(milliseconds(20));
  thread_.Do([&] { server_->Drain(); });
  EXPECT_TRUE(idle.AtEnd());
  thread_.Do([&] { service_.AnswerAll(); });
  EXPECT_FALSE(busy.Read().headers.contains("Connection"));
  EXPECT_EQ(busy.Read().headers.at("Connection"), "close");
  EXPECT_TRUE(busy.AtEnd());
  begun.Send("i");
  const HttpReply reply = begun.Read();
  EXPECT_EQ(reply.body, "POST /echo||hi");
  EXPECT_EQ(reply.headers.at("Connection"), "close");
  EXPECT_TRUE(begun.AtEnd());
  EXPECT_TRUE(Eventually([&] { return server_->connections() == 0 && server_->calls() == 0; }));
}

TEST_F(HttpServerTest, DestructionCancelsWhatIsInFlight) {
  Start();
  HttpClient client(port_);
  client.Send(HttpClient::Post("/late", "1"));
  ASSERT_TRUE(Waiting(1));
  thread_.Do([&] {
    server_.reset();
    EXPECT_EQ(service_.cancelled, 1);
    EXPECT_TRUE(service_.waiting.empty());
  });
  EXPECT_TRUE(client.AtEnd());
}

TEST_F(HttpServerTest, LargeBodiesGoBothWays) {
  Start();
  HttpClient client(port_);
  std::string body(20 << 20, 0);
  for (size_t i = 0; i < body.size(); ++i) {
    body[i] = static_cast<char>(i * 2654435761U >> 13);
  }
  for (int i = 0; i < 2; ++i) {
    std::thread sender([&] { client.Send(HttpClient::Post("/echo", body)); });
    const HttpReply reply = client.Read();
    sender.join();
    EXPECT_TRUE(reply.body == "POST /echo||" + body);
  }
}

}  // namespace
}  // namespace msserving
