#include <cstring>

#include "protocol/json_reply.h"

namespace msserving {
namespace {

constexpr char kHex[] = "0123456789abcdef";
constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

// True if none of the eight bytes is a quote, a backslash, a control character or outside ASCII.
bool IsPlain(uint64_t bytes) {
  constexpr uint64_t kOnes = 0x0101010101010101;
  constexpr uint64_t kHighs = 0x8080808080808080;
  const auto has_zero = [](uint64_t v) { return (v - kOnes) & ~v & kHighs; };
  const uint64_t quote = has_zero(bytes ^ (kOnes * '"'));
  const uint64_t backslash = has_zero(bytes ^ (kOnes * '\\'));
  const uint64_t control = (bytes - kOnes * 0x20) & ~bytes & kHighs;
  return ((quote | backslash | control | (bytes & kHighs))) == 0;
}

bool IsPlain(uint8_t c) { return c >= 0x20 && c < 0x80 && c != '"' && c != '\\'; }

// Length of the well-formed UTF-8 sequence at p (first byte >= 0x80), 0 if it is not well-formed.
size_t SequenceLength(const uint8_t* p, const uint8_t* end) {
  const auto left = static_cast<size_t>(end - p);
  const auto follows = [&](size_t i) { return (p[i] & 0xC0) == 0x80; };
  if (p[0] >= 0xC2 && p[0] <= 0xDF) {
    return left >= 2 && follows(1) ? 2 : 0;
  }
  if (p[0] >= 0xE0 && p[0] <= 0xEF) {
    const bool overlong = left >= 2 && p[0] == 0xE0 && p[1] < 0xA0;
    const bool surrogate = left >= 2 && p[0] == 0xED && p[1] >= 0xA0;
    return left >= 3 && follows(1) && follows(2) && !overlong && !surrogate ? 3 : 0;
  }
  if (p[0] >= 0xF0 && p[0] <= 0xF4) {
    const bool overlong = left >= 2 && p[0] == 0xF0 && p[1] < 0x90;
    const bool too_large = left >= 2 && p[0] == 0xF4 && p[1] >= 0x90;
    return left >= 4 && follows(1) && follows(2) && follows(3) && !overlong && !too_large ? 4 : 0;
  }
  return 0;
}

// One ASCII character that needs an escape.
void AppendEscaped(uint8_t c, Buffer* out) {
  char text[6] = {'\\', 0, '0', '0', 0, 0};
  size_t size = 2;
  switch (c) {
    case '"':
    case '\\': text[1] = static_cast<char>(c); break;
    case '\n': text[1] = 'n'; break;
    case '\r': text[1] = 'r'; break;
    case '\t': text[1] = 't'; break;
    case '\b': text[1] = 'b'; break;
    case '\f': text[1] = 'f'; break;
    default:
      text[1] = 'u';
      text[4] = kHex[c >> 4];
      text[5] = kHex[c & 15];
      size = 6;
  }
  out->Append(text, size);
}

}  // namespace

void EncodeJsonString(std::string_view text, Buffer* out) {
  const auto* p = reinterpret_cast<const uint8_t*>(text.data());
  const uint8_t* const end = p + text.size();
  out->Append("\"", 1);
  while (p < end) {
    const uint8_t* const run = p;
    uint64_t eight;
    while (end - p >= 8 && (std::memcpy(&eight, p, 8), IsPlain(eight))) {
      p += 8;
    }
    size_t length = 0;
    while (p < end && (IsPlain(*p) || (*p >= 0x80 && (length = SequenceLength(p, end)) != 0))) {
      p += *p < 0x80 ? 1 : length;
    }
    out->Append(run, static_cast<size_t>(p - run));
    if (p == end) {
      break;
    }
    if (*p < 0x80) {
      AppendEscaped(*p, out);
    } else {
      out->Append(kReplacement.data(), kReplacement.size());
    }
    ++p;
  }
  out->Append("\"", 1);
}

}  // namespace msserving
