#include "net/request_id.h"

#include <algorithm>
#include <random>

namespace msserving {

bool IsSaneRequestId(std::string_view id) {
  return !id.empty() && id.size() <= 128 && std::all_of(id.begin(), id.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           std::string_view("-_.:/+=@").find(c) != std::string_view::npos;
  });
}

RequestIds::RequestIds() {
  std::random_device seed;
  state_ = uint64_t{seed()} << 32 | seed();
}

std::string RequestIds::Next() {
  // A step of splitmix64: a counter, well mixed.
  state_ += 0x9E3779B97F4A7C15;
  uint64_t mixed = (state_ ^ state_ >> 30) * 0xBF58476D1CE4E5B9;
  mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB;
  mixed ^= mixed >> 31;
  std::string id(16, '0');
  for (char& c : id) {
    c = "0123456789abcdef"[mixed & 15];
    mixed >>= 4;
  }
  return id;
}

}  // namespace msserving
