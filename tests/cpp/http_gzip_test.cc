// Compressed bodies in both directions.
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "base/clock.h"
#include "http_server_fixture.h"
#include "net/compression.h"

namespace msserving {
namespace {

using testing::HttpServerTest;

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

}  // namespace
}  // namespace msserving
