// Compressed messages in both directions.
#include <gtest/gtest.h>
#include <zlib.h>

#include <string>

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

}  // namespace
}  // namespace msserving
