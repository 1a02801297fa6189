#include "net/tls.h"

#include <gtest/gtest.h>
#include <openssl/ssl.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <string>

#include "grpc_server_fixture.h"
#include "net/connection.h"
#include "test_certificates.h"

namespace msserving {
namespace {

using testing::Frame;
using testing::GrpcServerTest;
using testing::kMagic;
using testing::RawFrame;
using testing::TestCertificates;

// A blocking TLS client.
class TlsClient {
 public:
  struct Wishes {
    int max_version = 0;
    std::string protocols = "\x02h2";
    std::string certificate;
    std::string key;
  };

  TlsClient(int port, const std::string& ca, const Wishes& wishes) : fd_(ConnectTo(port)) {
    const timeval patience{10, 0};
    setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    context_ = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_min_proto_version(context_, 0);
    SSL_CTX_set_security_level(context_, 0);
    SSL_CTX_set_max_proto_version(context_, wishes.max_version);
    SSL_CTX_load_verify_locations(context_, ca.c_str(), nullptr);
    SSL_CTX_set_verify(context_, SSL_VERIFY_PEER, nullptr);
    if (!wishes.certificate.empty()) {
      SSL_CTX_use_certificate_file(context_, wishes.certificate.c_str(), SSL_FILETYPE_PEM);
      SSL_CTX_use_PrivateKey_file(context_, wishes.key.c_str(), SSL_FILETYPE_PEM);
    }
    ssl_ = SSL_new(context_);
    if (!wishes.protocols.empty()) {
      SSL_set_alpn_protos(ssl_, reinterpret_cast<const unsigned char*>(wishes.protocols.data()),
                          static_cast<unsigned int>(wishes.protocols.size()));
    }
    SSL_set_fd(ssl_, fd_);
    connected_ = SSL_connect(ssl_) == 1;
  }
  ~TlsClient() {
    SSL_free(ssl_);
    SSL_CTX_free(context_);
    close(fd_);
  }

  bool connected() const { return connected_; }
  std::string version() const { return SSL_get_version(ssl_); }
  std::string protocol() const {
    const unsigned char* name = nullptr;
    unsigned int size = 0;
    SSL_get0_alpn_selected(ssl_, &name, &size);
    return {reinterpret_cast<const char*>(name), size};
  }
  long serial() const {
    X509* certificate = SSL_get1_peer_certificate(ssl_);
    const long serial = ASN1_INTEGER_get(X509_get0_serialNumber(certificate));
    X509_free(certificate);
    return serial;
  }
  bool Write(const std::string& bytes) {
    return SSL_write(ssl_, bytes.data(), static_cast<int>(bytes.size())) == static_cast<int>(bytes.size());
  }
  // At least so many bytes, or what came before the end.
  std::string Read(size_t size) {
    std::string all;
    char bytes[16384];
    while (all.size() < size) {
      const int got = SSL_read(ssl_, bytes, sizeof(bytes));
      if (got <= 0) {
        break;
      }
      all.append(bytes, static_cast<size_t>(got));
    }
    return all;
  }

 private:
  int fd_;
  SSL_CTX* context_ = nullptr;
  SSL* ssl_ = nullptr;
  bool connected_ = false;
};

// What a client of HTTP/2 says first: it takes as much as there is.
std::string Greeting() {
  return std::string(kMagic) + RawFrame(NGHTTP2_SETTINGS, 0, 0, std::string("\x00\x04\x7f\xff\xff\xff", 6)) +
         RawFrame(NGHTTP2_WINDOW_UPDATE, 0, 0, std::string("\x3f\xff\xff\xff", 4));
}

// The header block of a call of /t/Slices.
std::string CallOfSlices() {
  const std::string path = "/t/Slices";
  std::string head = "\x83\x87\x41\x01x";
  head += std::string("\x44") + static_cast<char>(path.size()) + path;
  head += std::string("\x40\x0c") + "content-type" + "\x10" + "application/grpc";
  return head;
}

class TlsTest : public GrpcServerTest {
 protected:
  TlsTest() {
    certificates_.Issue("server");
    certificates_.Issue("client");
    options_ = {certificates_.Pem("server"), certificates_.Key("server"), "", false, true};
  }

  void ServeTls(GrpcServerOptions options = {}, const FakeClock* fake = nullptr) {
    std::shared_ptr<TlsContext> context;
    const Status status = TlsContext::Create(options_, &context);
    ASSERT_TRUE(status.ok()) << status.message();
    Serve(options, fake, context);
  }

  std::string Why() {
    std::shared_ptr<TlsContext> context;
    const Status status = TlsContext::Create(options_, &context);
    EXPECT_EQ(context, nullptr);
    return status.message();
  }

  // Does the server speak HTTP/2 with this client? With TLS 1.3 a refusal shows only here.
  static bool Greets(TlsClient* client) {
    return client->connected() && client->Write(std::string(kMagic) + RawFrame(NGHTTP2_SETTINGS, 0, 0, "")) &&
           client->Read(9).size() >= 9;
  }

  TestCertificates certificates_;
  TlsOptions options_;
};

TEST_F(TlsTest, ErrorsNameTheFile) {
  options_.certificate_file = "/nowhere/cert.pem";
  EXPECT_NE(Why().find("/nowhere/cert.pem"), std::string::npos);
  options_.certificate_file = certificates_.Pem("server");
  options_.private_key_file = certificates_.Pem("server");
  EXPECT_NE(Why().find("private key file"), std::string::npos);
  options_.private_key_file = certificates_.Key("client");
  EXPECT_NE(Why().find(certificates_.Key("client")), std::string::npos);
  options_.private_key_file = certificates_.Key("server");
  options_.verify_client = true;
  EXPECT_NE(Why().find("custom_ca"), std::string::npos);
  options_.custom_ca_file = certificates_.Key("server");
  EXPECT_NE(Why().find("CA file"), std::string::npos);
}

TEST_F(TlsTest, ErrorsSayWhatIsWrongWithAFile) {
  const auto why = [&](const std::string& certificate, const std::string& key) {
    options_ = {certificate, key, "", false, true};
    return Why();
  };
  const auto pem = [&](const char* name) { return certificates_.Pem(name); };
  const auto key = [&](const char* name) { return certificates_.Key(name); };
  certificates_.Issue("old", -7200, -60);
  certificates_.Issue("future", 3600, 7200);
  certificates_.Join("chain", {"server", "ca"});
  certificates_.Join("reversed", {"ca", "server"});
  certificates_.Join("unrelated", {"server", "client"});
  certificates_.Join("stale_chain", {"server", "old"});
  EXPECT_NE(why("/nowhere/cert.pem", key("server")).find("No such file"), std::string::npos);
  EXPECT_NE(why("/tmp", key("server")).find("not a file"), std::string::npos);
  EXPECT_NE(why(key("server"), key("server")).find("there is no certificate in it"), std::string::npos);
  EXPECT_NE(why(pem("old"), key("old")).find("has expired, it was valid until "), std::string::npos);
  EXPECT_NE(why(pem("future"), key("future")).find("is not yet valid, it will be from "), std::string::npos);
  EXPECT_NE(why(pem("reversed"), key("server")).find("out of order"), std::string::npos);
  EXPECT_NE(why(pem("unrelated"), key("server")).find("certificate 2 is not the issuer of number 1"),
            std::string::npos);
  EXPECT_NE(why(pem("stale_chain"), key("server")).find("certificate 2 has expired"), std::string::npos);
  EXPECT_NE(why(pem("server"), key("client")).find("does not belong to the certificate file"), std::string::npos);
  EXPECT_NE(why(pem("server"), pem("server")).find("no private key in PEM"), std::string::npos);
  // A key with a password must not make the server ask for it.
  EVP_PKEY* secret = EVP_EC_gen("P-256");
  FILE* file = std::fopen(key("locked").c_str(), "w");
  PEM_write_PrivateKey(file, secret, EVP_aes_128_cbc(), reinterpret_cast<const unsigned char*>("word"), 4, nullptr,
                       nullptr);
  std::fclose(file);
  EVP_PKEY_free(secret);
  EXPECT_NE(why(pem("server"), key("locked")).find("it is encrypted"), std::string::npos);
  options_ = {pem("chain"), key("server"), "", false, true};
  std::shared_ptr<TlsContext> context;
  EXPECT_TRUE(TlsContext::Create(options_, &context).ok());
}

TEST_F(TlsTest, Http2IsSpokenOnlyWithAlpn) {
  ServeTls();
  TlsClient without(port(), certificates_.Pem("ca"), {.protocols = ""});
  EXPECT_FALSE(without.connected());
  TlsClient with(port(), certificates_.Pem("ca"), {});
  EXPECT_TRUE(Greets(&with));
}

class TlsRefreshTest : public TlsTest {
 protected:
  void LetTimePass() {
    for (int i = 0; i < 3; ++i) {
      Advance(TlsContext::kRefreshNs);
    }
  }
  // Of the certificate that a new connection is shown; 0: no connection.
  long Shown() {
    TlsClient client(port(), certificates_.Pem("ca"), {});
    return Greets(&client) ? client.serial() : 0;
  }
};

TEST_F(TlsRefreshTest, NewFilesAreUsedAndOldConnectionsGoOn) {
  ServeTls({}, &clock);
  TlsClient running(port(), certificates_.Pem("ca"), {});
  ASSERT_TRUE(Greets(&running));
  const long first = running.serial();
  EXPECT_EQ(Shown(), first);
  certificates_.Issue("server");
  Advance(TlsContext::kRefreshNs / 2);
  EXPECT_EQ(Shown(), first) << "not looked at yet";
  LetTimePass();
  const long second = Shown();
  EXPECT_GT(second, first);
  ASSERT_TRUE(running.Write(RawFrame(NGHTTP2_PING, 0, 0, "12345678")));
  EXPECT_GE(running.Read(17).size(), 17u);
  certificates_.Issue("server");
  LetTimePass();
  EXPECT_GT(Shown(), second);
}

TEST_F(TlsRefreshTest, FilesThatCannotBeUsedChangeNothing) {
  ServeTls({}, &clock);
  const long first = Shown();
  const std::string certificate = certificates_.Pem("server");
  std::filesystem::rename(certificate, certificate + ".away");
  LetTimePass();
  EXPECT_EQ(Shown(), first) << "the file is gone";
  std::filesystem::copy_file(certificates_.Pem("client"), certificate);
  LetTimePass();
  EXPECT_EQ(Shown(), first) << "the key is another one's";
  std::filesystem::rename(certificates_.Key("client"), certificates_.Key("server"));
  LetTimePass();
  EXPECT_GT(Shown(), first) << "now they fit";
}

TEST_F(TlsTest, SpeaksHttp2AndNothingOlderThanTls12) {
  ServeTls();
  for (const auto& [version, name] : {std::pair(TLS1_2_VERSION, "TLSv1.2"), std::pair(TLS1_3_VERSION, "TLSv1.3")}) {
    TlsClient client(port(), certificates_.Pem("ca"), {.max_version = version});
    ASSERT_TRUE(Greets(&client)) << name;
    EXPECT_EQ(client.version(), name);
    EXPECT_EQ(client.protocol(), "h2");
  }
  TlsClient old(port(), certificates_.Pem("ca"), {.max_version = TLS1_1_VERSION});
  EXPECT_FALSE(old.connected());
  TlsClient other(port(), certificates_.Pem("ca"), {.protocols = "\x08http/1.1"});
  EXPECT_FALSE(other.connected());
  TlsClient both(port(), certificates_.Pem("ca"), {.protocols = "\x08http/1.1\x02h2"});
  EXPECT_EQ(both.protocol(), "h2");
}

TEST_F(TlsTest, CallWithALargeReply) {
  ServeTls();
  TlsClient client(port(), certificates_.Pem("ca"), {});
  ASSERT_TRUE(client.connected());
  ASSERT_TRUE(client.Write(Greeting() + RawFrame(NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS, 1, CallOfSlices()) +
                           RawFrame(NGHTTP2_DATA, NGHTTP2_FLAG_END_STREAM, 1, Frame("30000000"))));
  const std::string received = client.Read(30'000'000);
  ASSERT_GE(received.size(), 30'000'000u);
  // Leave the frame headers out, as far as that is possible by counting.
  EXPECT_GE(std::count(received.begin(), received.end(), 's'), 29'900'000);
  EXPECT_TRUE(Eventually([&] { return service.keepers_gone == 1; }));
}

// Here as without TLS: what comes after a refusal is left alone for a moment, and then all of it is read.
TEST_F(TlsTest, AfterARefusalInputIsGathered) {
  ServeTls({}, &clock);
  TlsClient client(port(), certificates_.Pem("ca"), {});
  ASSERT_TRUE(Greets(&client));
  const auto call = [](int stream, const std::string& path, const std::string& message) {
    std::string head = "\x83\x87\x41\x01x";
    head += std::string("\x04") + static_cast<char>(path.size()) + path;  // not indexed: blocks are all alike
    head += std::string("\x00\x0c", 2) + "content-type" + "\x10" + "application/grpc";
    return RawFrame(NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS, stream, head) +
           RawFrame(NGHTTP2_DATA, NGHTTP2_FLAG_END_STREAM, stream, Frame(message));
  };
  ASSERT_TRUE(client.Write(call(1, "/t/Refuse", "x")));
  ASSERT_TRUE(Eventually([&] { return service.calls == 1; }));
  constexpr int kMore = 40;
  for (int i = 1; i <= kMore; ++i) {
    ASSERT_TRUE(client.Write(call(1 + 2 * i, "/t/Echo", std::string(4000, 'e'))));
  }
  for (int i = 0; i < 5; ++i) {
    OnLoop([] {});
  }
  EXPECT_EQ(service.calls, 1);
  Advance(Connection::kGatherNs);
  EXPECT_TRUE(Eventually([&] { return service.calls == 1 + kMore; }));
  ASSERT_TRUE(client.Write(call(3 + 2 * kMore, "/t/Echo", "at once")));
  EXPECT_TRUE(Eventually([&] { return service.calls == 2 + kMore; }));
}

TEST_F(TlsTest, ClientsWithoutACertificateOfOursStayOutside) {
  options_.verify_client = true;
  options_.custom_ca_file = certificates_.Pem("ca");
  ServeTls();
  TlsClient none(port(), certificates_.Pem("ca"), {});
  EXPECT_FALSE(Greets(&none));
  TestCertificates others;
  others.Issue("client");
  TlsClient stranger(port(), certificates_.Pem("ca"),
                     {.certificate = others.Pem("client"), .key = others.Key("client")});
  EXPECT_FALSE(Greets(&stranger));
  TlsClient ours(port(), certificates_.Pem("ca"),
                 {.certificate = certificates_.Pem("client"), .key = certificates_.Key("client")});
  EXPECT_TRUE(Greets(&ours));
  EXPECT_TRUE(Eventually([&] { return connections() == 1; }));
}

TEST_F(TlsTest, GarbageInsteadOfAHandshakeEndsTheConnection) {
  ServeTls();
  const int fd = ConnectTo(port());
  const std::string garbage(5000, 'g');
  ASSERT_EQ(send(fd, garbage.data(), garbage.size(), MSG_NOSIGNAL), 5000);
  const timeval patience{10, 0};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  char bytes[100];
  while (recv(fd, bytes, sizeof(bytes), 0) > 0) {
  }
  EXPECT_TRUE(Eventually([&] { return connections() == 0; }));
  close(fd);
}

// What TLS has encrypted waits outside of the plain output; it is no less unsent.
TEST_F(TlsTest, AClientThatStopsReadingIsClosed) {
  GrpcServerOptions options;
  options.slow_reader_timeout_ns = 10 * kNanosPerSecond;
  ServeTls(options, &clock);
  TlsClient client(port(), certificates_.Pem("ca"), {});
  ASSERT_TRUE(client.connected());
  ASSERT_TRUE(client.Write(Greeting()));
  const std::string head = CallOfSlices();
  // One after the other, until the sockets are full in the middle of one.
  for (int i = 0; i < 400; ++i) {
    ASSERT_TRUE(client.Write(RawFrame(NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS, 1 + 2 * i, head) +
                             RawFrame(NGHTTP2_DATA, NGHTTP2_FLAG_END_STREAM, 1 + 2 * i, Frame("64000"))));
    ASSERT_TRUE(Eventually([&] { return service.calls == i + 1; }));
  }
  EXPECT_EQ(connections(), 1u);
  for (int i = 0; i < 6; ++i) {
    Advance(3 * kNanosPerSecond);
  }
  EXPECT_TRUE(Eventually([&] { return connections() == 0; }));
}

TEST_F(TlsTest, HandshakeThatDoesNotComeIsGivenUp) {
  GrpcServerOptions options;
  options.incomplete_timeout_ns = 10 * kNanosPerSecond;
  ServeTls(options, &clock);
  const int fd = ConnectTo(port());
  ASSERT_TRUE(Eventually([&] { return connections() == 1; }));
  for (int i = 0; i < 5; ++i) {
    Advance(3 * kNanosPerSecond);
  }
  EXPECT_TRUE(Eventually([&] { return connections() == 0; }));
  close(fd);
}

}  // namespace
}  // namespace msserving
