#include "protocol/base64.h"

#include <array>

namespace msserving {
namespace {

constexpr char kAlphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
constexpr uint32_t kBad = 0x80000000;

// Twelve bits to two characters.
constexpr auto kEncodePairs = [] {
  std::array<std::array<char, 2>, 4096> table{};
  for (size_t i = 0; i < table.size(); ++i) {
    table[i] = {kAlphabet[i >> 6], kAlphabet[i & 63]};
  }
  return table;
}();

// One character to its six bits, already shifted to its place among four; kBad for others.
template <int kShift>
constexpr auto kDecode = [] {
  std::array<uint32_t, 256> table{};
  table.fill(kBad);
  for (uint32_t i = 0; i < 64; ++i) {
    table[static_cast<uint8_t>(kAlphabet[i])] = i << kShift;
  }
  return table;
}();

uint32_t DecodeFour(const uint8_t* p) {
  return kDecode<18>[p[0]] | kDecode<12>[p[1]] | kDecode<6>[p[2]] | kDecode<0>[p[3]];
}

}  // namespace

char* EncodeBase64(const uint8_t* bytes, size_t size, char* out) {
  const uint8_t* const whole_end = bytes + size / 3 * 3;
  for (; bytes < whole_end; bytes += 3) {
    const uint32_t bits = uint32_t{bytes[0]} << 16 | uint32_t{bytes[1]} << 8 | bytes[2];
    const auto& first = kEncodePairs[bits >> 12];
    const auto& second = kEncodePairs[bits & 4095];
    out[0] = first[0];
    out[1] = first[1];
    out[2] = second[0];
    out[3] = second[1];
    out += 4;
  }
  const size_t rest = size % 3;
  if (rest != 0) {
    const uint32_t bits = uint32_t{bytes[0]} << 16 | (rest == 2 ? uint32_t{bytes[1]} << 8 : 0);
    out[0] = kAlphabet[bits >> 18];
    out[1] = kAlphabet[(bits >> 12) & 63];
    out[2] = rest == 2 ? kAlphabet[(bits >> 6) & 63] : '=';
    out[3] = '=';
    out += 4;
  }
  return out;
}

bool DecodeBase64(std::string_view text, uint8_t* out, size_t* size) {
  *size = 0;
  if (text.size() % 4 != 0) {
    return false;
  }
  if (text.empty()) {
    return true;
  }
  const auto* p = reinterpret_cast<const uint8_t*>(text.data());
  const uint8_t* const last = p + text.size() - 4;
  uint8_t* const begin = out;
  uint32_t bad = 0;
  for (; p < last; p += 4, out += 3) {
    const uint32_t bits = DecodeFour(p);
    bad |= bits;
    out[0] = static_cast<uint8_t>(bits >> 16);
    out[1] = static_cast<uint8_t>(bits >> 8);
    out[2] = static_cast<uint8_t>(bits);
  }
  const int padding = last[3] != '=' ? 0 : last[2] != '=' ? 1 : 2;
  const uint8_t four[4] = {last[0], last[1], padding == 2 ? uint8_t{'A'} : last[2],
                           padding != 0 ? uint8_t{'A'} : last[3]};
  const uint32_t bits = DecodeFour(four);
  if (((bad | bits) & kBad) != 0) {
    return false;
  }
  for (int i = 0; i < 3 - padding; ++i) {
    *out++ = static_cast<uint8_t>(bits >> (16 - 8 * i));
  }
  *size = static_cast<size_t>(out - begin);
  return true;
}

}  // namespace msserving
