// Connections of HTTP/1.1 clients and the order of their replies.
#include <gtest/gtest.h>

#include <chrono>
#include <ctime>
#include <string>
#include <thread>

#include "http_server_fixture.h"

namespace msserving {
namespace {

using std::chrono::milliseconds;
using testing::HttpServerTest;

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
