// What RFC 9113 demands of a server, case by case: bytes of a client in, what comes back out. A stream error may be
// made a connection error by any server; here is written what this one does, which is one of the answers allowed.
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "grpc_server_fixture.h"

namespace msserving {
namespace {

using testing::Frame;
using testing::GrpcServerTest;
using testing::kMagic;
using testing::RawFrame;

constexpr uint8_t kEndStream = NGHTTP2_FLAG_END_STREAM;
constexpr uint8_t kEndHeaders = NGHTTP2_FLAG_END_HEADERS;
constexpr uint8_t kPadded = NGHTTP2_FLAG_PADDED;
constexpr uint8_t kPriority = NGHTTP2_FLAG_PRIORITY;
constexpr uint8_t kUnknownFrame = 0xBE;
constexpr uint32_t kProbe = 101;  // the stream of a good call behind every case

using Fields = std::vector<std::pair<std::string, std::string>>;

// A header block of literals that nobody indexes.
std::string Block(const Fields& fields) {
  std::string block;
  for (const auto& [name, value] : fields) {
    block += '\0';
    block += static_cast<char>(name.size());
    block += name;
    block += static_cast<char>(value.size());
    block += value;
  }
  return block;
}

Fields Call(const std::string& path = "/t/Echo") {
  return {{":method", "POST"}, {":scheme", "http"}, {":path", path},
          {":authority", "a"}, {"te", "trailers"},  {"content-type", "application/grpc"}};
}

Fields With(Fields fields, const std::string& name, const std::string& value) {
  fields.emplace_back(name, value);
  return fields;
}

Fields Without(Fields fields, const std::string& name) {
  std::erase_if(fields, [&](const auto& field) { return field.first == name; });
  return fields;
}

std::string HeadersFrame(uint32_t stream, const Fields& fields, uint8_t flags = kEndHeaders) {
  return RawFrame(NGHTTP2_HEADERS, flags, stream, Block(fields));
}

std::string DataFrame(uint32_t stream, std::string_view bytes, uint8_t flags = kEndStream) {
  return RawFrame(NGHTTP2_DATA, flags, stream, bytes);
}

// A whole good call.
std::string Request(uint32_t stream, const Fields& fields = Call()) {
  return HeadersFrame(stream, fields) + DataFrame(stream, Frame("x"));
}

// A call that the service keeps: its stream is half-closed from here on.
std::string Held(uint32_t stream) { return Request(stream, Call("/t/Hold")); }

std::string Number(uint32_t value) {
  return {static_cast<char>(value >> 24), static_cast<char>(value >> 16), static_cast<char>(value >> 8),
          static_cast<char>(value)};
}

std::string Setting(uint16_t id, uint32_t value) {
  return std::string({static_cast<char>(id >> 8), static_cast<char>(id)}) + Number(value);
}

std::string WindowUpdate(uint32_t stream, uint32_t size) {
  return RawFrame(NGHTTP2_WINDOW_UPDATE, 0, stream, Number(size));
}

class H2ConformanceTest : public GrpcServerTest {
 protected:
  // The errors that come back: "reset STREAM ERROR; " for stream errors, "goaway ERROR" for the connection's, "closed"
  // for its end without a word. "served": the good call behind the bytes was answered, on the same connection.
  std::string Outcome(const std::string& bytes, bool greet = true) {
    const int fd = ConnectTo(port());
    const timeval patience{20, 0};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    const std::string greeting = std::string(kMagic) + RawFrame(NGHTTP2_SETTINGS, 0, 0, "");
    const std::string all = (greet ? greeting : "") + bytes + Request(kProbe);
    send(fd, all.data(), all.size(), MSG_NOSIGNAL);
    std::string outcome;
    std::string received;
    while (!Judge(&received, &outcome)) {
      char piece[65536];
      const ssize_t got = recv(fd, piece, sizeof(piece), 0);
      if (got <= 0) {
        outcome += got == 0 || errno == ECONNRESET ? "closed" : "timed out";
        break;
      }
      received.append(piece, static_cast<size_t>(got));
    }
    close(fd);
    constexpr std::string_view kTwice = "closed";
    if (outcome.starts_with("goaway") || outcome.find("; goaway") != std::string::npos) {
      EXPECT_TRUE(outcome.ends_with(kTwice)) << "GOAWAY, but the connection stays: " << outcome;
      outcome.resize(outcome.size() - kTwice.size());
    }
    return outcome;
  }

 private:
  // Takes whole frames off the front. True: the good call was answered.
  static bool Judge(std::string* received, std::string* outcome) {
    while (received->size() >= 9) {
      const auto byte = [&](size_t at) { return static_cast<uint32_t>(static_cast<uint8_t>((*received)[at])); };
      const auto number = [&](size_t at) {
        return byte(at) << 24 | byte(at + 1) << 16 | byte(at + 2) << 8 | byte(at + 3);
      };
      const size_t size = byte(0) << 16 | byte(1) << 8 | byte(2);
      if (received->size() < 9 + size) {
        return false;
      }
      const uint32_t stream = number(5);
      if (byte(3) == NGHTTP2_RST_STREAM && number(9) != NGHTTP2_NO_ERROR) {
        *outcome += "reset " + std::to_string(stream) + " " + std::to_string(number(9)) + "; ";
      } else if (byte(3) == NGHTTP2_GOAWAY) {
        *outcome += "goaway " + std::to_string(number(13));
      } else if (byte(3) == NGHTTP2_HEADERS && stream == kProbe && (byte(4) & kEndStream) != 0) {
        *outcome += "served";
        return true;
      }
      received->erase(0, 9 + size);
    }
    return false;
  }
};

const std::string kProtocolError = "goaway 1";
const std::string kFlowControlError = "goaway 3";
const std::string kStreamClosed = "goaway 5";
const std::string kFrameSizeError = "goaway 6";
const std::string kCompressionError = "goaway 9";
const std::string kBadStream = "reset 1 1; served";
const std::string kServed = "served";

struct Case {
  const char* what;
  std::string bytes;
  std::string outcome;
};

TEST_F(H2ConformanceTest, Preface) {  // 3.4
  Serve();
  EXPECT_EQ(Outcome("", true), kServed);
  EXPECT_EQ(Outcome("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n" + RawFrame(NGHTTP2_SETTINGS, 0, 0, ""), false), kProtocolError);
  EXPECT_EQ(Outcome(std::string(kMagic) + RawFrame(NGHTTP2_PING, 0, 0, "12345678"), false), kProtocolError)
      << "the first frame is SETTINGS";
}

TEST_F(H2ConformanceTest, Cases) {
  Serve();
  const std::string large(16'385, 'x');
  const std::string half_headers = HeadersFrame(1, Call(), 0);
  const std::string good_end = DataFrame(1, Frame("x"));
  const std::string priority("\x00\x00\x00\x03\x10", 5);
  const std::string own_priority("\x00\x00\x00\x01\x10", 5);
  const std::vector<Case> cases = {
      // 4.1 Frame format
      {"an unknown frame type is ignored", RawFrame(kUnknownFrame, 0, 0, "what"), kServed},
      {"an unknown frame on a stream that is idle", RawFrame(kUnknownFrame, 0, 7, "what"), kServed},
      {"unknown flags are ignored", RawFrame(NGHTTP2_PING, 0x16, 0, "12345678"), kServed},
      {"the reserved bit of a stream is ignored", RawFrame(NGHTTP2_PING, 0, 0x80000000, "12345678"), kServed},
      // 4.2 Frame size
      {"DATA larger than allowed", HeadersFrame(1, Call()) + DataFrame(1, large, 0), kFrameSizeError},
      {"HEADERS larger than allowed", RawFrame(NGHTTP2_HEADERS, kEndHeaders, 1, large), kFrameSizeError},
      {"an unknown frame larger than allowed", RawFrame(kUnknownFrame, 0, 0, large), kFrameSizeError},
      {"PING of 7 bytes", RawFrame(NGHTTP2_PING, 0, 0, "1234567"), kFrameSizeError},
      {"PING of 9 bytes", RawFrame(NGHTTP2_PING, 0, 0, "123456789"), kFrameSizeError},
      {"RST_STREAM of 3 bytes", Held(1) + RawFrame(NGHTTP2_RST_STREAM, 0, 1, "123"), kFrameSizeError},
      {"WINDOW_UPDATE of 3 bytes", RawFrame(NGHTTP2_WINDOW_UPDATE, 0, 0, "123"), kFrameSizeError},
      {"SETTINGS of 5 bytes", RawFrame(NGHTTP2_SETTINGS, 0, 0, "12345"), kFrameSizeError},
      {"SETTINGS ACK with a payload", RawFrame(NGHTTP2_SETTINGS, NGHTTP2_FLAG_ACK, 0, Setting(1, 1)), kFrameSizeError},
      {"GOAWAY of 7 bytes", RawFrame(NGHTTP2_GOAWAY, 0, 0, "1234567"), kFrameSizeError},
      // 4.3 Header compression
      {"a broken header block", RawFrame(NGHTTP2_HEADERS, kEndHeaders, 1, "\xFF\xFF\xFF\xFF\xFF\xFF"),
       kCompressionError},
      {"an index beyond the table", RawFrame(NGHTTP2_HEADERS, kEndHeaders, 1, "\xFE"), kCompressionError},
      // 5.1 Stream states
      {"DATA on an idle stream", DataFrame(1, Frame("x")), kProtocolError},
      {"RST_STREAM on an idle stream", RawFrame(NGHTTP2_RST_STREAM, 0, 1, Number(8)), kProtocolError},
      {"WINDOW_UPDATE on an idle stream", WindowUpdate(1, 100), kProtocolError},
      {"CONTINUATION on an idle stream", RawFrame(NGHTTP2_CONTINUATION, kEndHeaders, 1, Block(Call())), kProtocolError},
      {"DATA on a half-closed stream", Held(1) + DataFrame(1, "more"), kStreamClosed},
      {"HEADERS on a half-closed stream", Held(1) + HeadersFrame(1, Call(), kEndHeaders | kEndStream), kStreamClosed},
      {"CONTINUATION on a half-closed stream", Held(1) + RawFrame(NGHTTP2_CONTINUATION, kEndHeaders, 1, ""),
       kProtocolError},
      // A closed stream's frames may be late ones, and may be ignored.
      {"HEADERS on a stream that was reset",
       Held(1) + RawFrame(NGHTTP2_RST_STREAM, 0, 1, Number(8)) + HeadersFrame(1, Call()), kServed},
      {"WINDOW_UPDATE on a closed stream", Held(1) + RawFrame(NGHTTP2_RST_STREAM, 0, 1, Number(8)) + WindowUpdate(1, 1),
       kServed},
      // 5.1.1 Stream identifiers
      {"an even stream", Request(2), kProtocolError},
      {"a stream that was passed over", Held(5) + Request(3), kProtocolError},
      {"the first stream, passed over", Request(3) + Request(1), kProtocolError},
      {"a stream that was passed over, with a priority",
       Held(5) + RawFrame(NGHTTP2_HEADERS, kEndHeaders | kPriority, 3, priority + Block(Call())), kProtocolError},
      {"a stream that was passed over, padded",
       Held(5) + RawFrame(NGHTTP2_HEADERS, kEndHeaders | kPadded, 3, "\x03" + Block(Call()) + "pad"), kProtocolError},
      {"a stream passed over long ago", Held(3) + Request(7) + Request(9) + Request(15) + Request(5), kProtocolError},
      {"streams left out, and only higher ones opened", Held(5) + Request(11) + Request(21), kServed},
      {"trailers behind a stream that passed others over",
       HeadersFrame(3, Call()) + Held(9) + DataFrame(3, Frame("x"), 0) +
           HeadersFrame(3, {{"a", "b"}}, kEndHeaders | kEndStream),
       kServed},
      {"HEADERS on a lower stream that was reset, others passed over",
       Held(3) + Request(9) + RawFrame(NGHTTP2_RST_STREAM, 0, 3, Number(8)) + HeadersFrame(3, Call()), kServed},
      {"HEADERS on a lower stream that is half-closed, others passed over",
       Held(3) + Request(9) + HeadersFrame(3, Call(), kEndHeaders | kEndStream), kStreamClosed},
      {"PRIORITY of a stream that was passed over", Held(5) + RawFrame(NGHTTP2_PRIORITY, 0, 3, priority), kServed},
      // 5.3 Priority, which says nothing any more
      {"PRIORITY is ignored", RawFrame(NGHTTP2_PRIORITY, 0, 1, priority), kServed},
      {"HEADERS with a priority",
       RawFrame(NGHTTP2_HEADERS, kEndHeaders | kPriority, 1, priority + Block(Call())) + good_end, kServed},
      {"PRIORITY of a stream on itself", RawFrame(NGHTTP2_PRIORITY, 0, 1, own_priority), kServed},
      // 6.1 DATA, 6.2 HEADERS, 6.4 RST_STREAM, 6.6 PUSH_PROMISE, 6.7 PING, 6.8 GOAWAY
      {"DATA on stream 0", DataFrame(0, "x"), kProtocolError},
      {"DATA with more padding than payload",
       HeadersFrame(1, Call()) + RawFrame(NGHTTP2_DATA, kPadded, 1,
                                          std::string("\x05"
                                                      "abc",
                                                      4)),
       kProtocolError},
      {"HEADERS on stream 0", HeadersFrame(0, Call()), kProtocolError},
      {"HEADERS with more padding than payload",
       RawFrame(NGHTTP2_HEADERS, kEndHeaders | kPadded, 1,
                "\x7F"
                "abc"),
       kProtocolError},
      {"good padding",
       RawFrame(NGHTTP2_HEADERS, kEndHeaders | kPadded, 1, "\x03" + Block(Call()) + "pad") +
           RawFrame(NGHTTP2_DATA, kEndStream | kPadded, 1, "\x03" + Frame("x") + "pad"),
       kServed},
      {"RST_STREAM on stream 0", RawFrame(NGHTTP2_RST_STREAM, 0, 0, Number(8)), kProtocolError},
      {"PUSH_PROMISE from a client", RawFrame(NGHTTP2_PUSH_PROMISE, kEndHeaders, 1, Number(2) + Block(Call())),
       kProtocolError},
      {"PING on a stream", RawFrame(NGHTTP2_PING, 0, 1, "12345678"), kProtocolError},
      {"GOAWAY on a stream", RawFrame(NGHTTP2_GOAWAY, 0, 1, Number(0) + Number(0)), kProtocolError},
      // 6.5 SETTINGS
      {"SETTINGS on a stream", RawFrame(NGHTTP2_SETTINGS, 0, 1, Setting(3, 1)), kProtocolError},
      {"an unknown setting is ignored", RawFrame(NGHTTP2_SETTINGS, 0, 0, Setting(0xABC, 1)), kServed},
      {"ENABLE_PUSH of 2", RawFrame(NGHTTP2_SETTINGS, 0, 0, Setting(2, 2)), kProtocolError},
      {"INITIAL_WINDOW_SIZE of 2^31", RawFrame(NGHTTP2_SETTINGS, 0, 0, Setting(4, 0x80000000)), kFlowControlError},
      {"MAX_FRAME_SIZE below 2^14", RawFrame(NGHTTP2_SETTINGS, 0, 0, Setting(5, 16'383)), kProtocolError},
      {"MAX_FRAME_SIZE of 2^24", RawFrame(NGHTTP2_SETTINGS, 0, 0, Setting(5, 1 << 24)), kProtocolError},
      // 6.9 WINDOW_UPDATE
      {"a window update of 0 for the connection", WindowUpdate(0, 0), kProtocolError},
      {"a window update of 0 for a stream", Held(1) + WindowUpdate(1, 0), kProtocolError},
      {"a connection's window beyond 2^31-1", WindowUpdate(0, 0x7FFFFFFF), kFlowControlError},
      {"a stream's window beyond 2^31-1", Held(1) + WindowUpdate(1, 0x7FFFFFFF), "reset 1 3; served"},
      {"a window beyond 2^31-1 by SETTINGS",
       Held(1) + WindowUpdate(1, 0x7FFF0000) + RawFrame(NGHTTP2_SETTINGS, 0, 0, Setting(4, 0x7FFFFFFF)),
       "reset 1 3; served"},
      // 6.10 CONTINUATION
      {"headers in pieces",
       RawFrame(NGHTTP2_HEADERS, 0, 1, Block(Call()).substr(0, 10)) +
           RawFrame(NGHTTP2_CONTINUATION, 0, 1, Block(Call()).substr(10, 10)) +
           RawFrame(NGHTTP2_CONTINUATION, kEndHeaders, 1, Block(Call()).substr(20)) + good_end,
       kServed},
      {"DATA between HEADERS and CONTINUATION", half_headers + DataFrame(1, "x"), kProtocolError},
      {"PING between HEADERS and CONTINUATION", half_headers + RawFrame(NGHTTP2_PING, 0, 0, "12345678"),
       kProtocolError},
      {"an unknown frame between HEADERS and CONTINUATION", half_headers + RawFrame(kUnknownFrame, 0, 0, ""),
       kProtocolError},
      {"HEADERS of another stream between HEADERS and CONTINUATION", half_headers + Request(3), kProtocolError},
      {"CONTINUATION of another stream", half_headers + RawFrame(NGHTTP2_CONTINUATION, kEndHeaders, 3, ""),
       kProtocolError},
      {"CONTINUATION on stream 0", half_headers + RawFrame(NGHTTP2_CONTINUATION, kEndHeaders, 0, ""), kProtocolError},
      // 8.1 HTTP messages
      {"trailers without the stream's end", HeadersFrame(1, Call()) + HeadersFrame(1, {{"a", "b"}}), kBadStream},
      {"trailers",
       HeadersFrame(1, Call()) + DataFrame(1, Frame("x"), 0) + HeadersFrame(1, {{"a", "b"}}, kEndHeaders | kEndStream),
       kServed},
      {"a pseudo-header in trailers",
       HeadersFrame(1, Call()) + HeadersFrame(1, {{":path", "/"}}, kEndHeaders | kEndStream), kBadStream},
      {"content-length above the body", Request(1, With(Call(), "content-length", "7")), kBadStream},
      {"content-length below the body", Request(1, With(Call(), "content-length", "5")), kBadStream},
      {"content-length as it should be", Request(1, With(Call(), "content-length", "6")), kServed},
      {"content-length that is no number", Request(1, With(Call(), "content-length", "six")), kBadStream},
      // 8.2 Fields
      {"an upper-case name", Request(1, With(Call(), "X-Y", "z")), kBadStream},
      {"a name with a space", Request(1, With(Call(), "x y", "z")), kBadStream},
      {"an empty name", Request(1, With(Call(), "", "z")), kBadStream},
      {"a value with a line's end", Request(1, With(Call(), "x", "a\r\nb: c")), kBadStream},
      {"a value with a zero byte", Request(1, With(Call(), "x", std::string("a\0b", 3))), kBadStream},
      {"connection", Request(1, With(Call(), "connection", "close")), kBadStream},
      {"keep-alive", Request(1, With(Call(), "keep-alive", "1")), kBadStream},
      {"proxy-connection", Request(1, With(Call(), "proxy-connection", "close")), kBadStream},
      {"transfer-encoding", Request(1, With(Call(), "transfer-encoding", "chunked")), kBadStream},
      {"upgrade", Request(1, With(Call(), "upgrade", "h3")), kBadStream},
      {"te of another value", Request(1, With(Without(Call(), "te"), "te", "gzip")), kBadStream},
      {"no te, which is forgiven", Request(1, Without(Call(), "te")), kServed},
      // 8.3 Control data
      {"an unknown pseudo-header",
       Request(1,
               [] {
                 Fields fields = Call();
                 fields.insert(fields.begin(), {":what", "x"});
                 return fields;
               }()),
       kBadStream},
      {":status in a request",
       Request(1,
               [] {
                 Fields fields = Call();
                 fields.insert(fields.begin(), {":status", "200"});
                 return fields;
               }()),
       kBadStream},
      {"a pseudo-header after others", Request(1, With(Without(Call(), ":path"), ":path", "/t/Echo")), kBadStream},
      {":method twice",
       Request(1,
               [] {
                 Fields fields = Call();
                 fields.insert(fields.begin(), {":method", "POST"});
                 return fields;
               }()),
       kBadStream},
      {"no :method", Request(1, Without(Call(), ":method")), kBadStream},
      {"no :scheme", Request(1, Without(Call(), ":scheme")), kBadStream},
      {"no :path", Request(1, Without(Call(), ":path")), kBadStream},
      {"an empty :path", Request(1, Call("")), kBadStream},
  };
  for (const Case& one : cases) {
    const int held = service.held;
    EXPECT_EQ(Outcome(one.bytes), one.outcome) << one.what;
    EXPECT_LE(service.held - held, 1) << one.what;
  }
}

TEST_F(H2ConformanceTest, StreamsBeyondTheLimitAreRefused) {  // 5.1.2
  GrpcServerOptions options;
  options.max_concurrent_streams = 1;
  Serve(options);
  // Once the client has acknowledged the limit, more streams are its fault: a connection error is allowed.
  const std::string outcome = Outcome(RawFrame(NGHTTP2_SETTINGS, NGHTTP2_FLAG_ACK, 0, "") + Held(1) + Request(3));
  EXPECT_TRUE(outcome == kProtocolError || outcome.starts_with("reset 3 7; ")) << outcome;
}

TEST_F(H2ConformanceTest, PingIsAnsweredWithItsBytes) {  // 6.7
  Serve();
  const int fd = ConnectTo(port());
  const std::string bytes = std::string(kMagic) + RawFrame(NGHTTP2_SETTINGS, 0, 0, "") +
                            RawFrame(NGHTTP2_PING, 0, 0, "abcdefgh") +
                            RawFrame(NGHTTP2_PING, NGHTTP2_FLAG_ACK, 0, "unasked!");
  send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
  const timeval patience{20, 0};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  const std::string answer = RawFrame(NGHTTP2_PING, NGHTTP2_FLAG_ACK, 0, "abcdefgh");
  std::string received;
  char piece[4096];
  for (ssize_t got = 1; got > 0 && received.find(answer) == std::string::npos;) {
    got = recv(fd, piece, sizeof(piece), 0);
    received.append(piece, static_cast<size_t>(std::max<ssize_t>(got, 0)));
  }
  EXPECT_NE(received.find(answer), std::string::npos);
  close(fd);
}

}  // namespace
}  // namespace msserving
