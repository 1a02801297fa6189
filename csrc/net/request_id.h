// Names for requests, so that a client's trouble can be found in a log.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace msserving {

// What a client may call its request (x-request-id): 1 to 128 letters, digits and -_.:/+=@. Nothing else is kept,
// since it is sent back and written to logs.
bool IsSaneRequestId(std::string_view id);

// Makes up names of 16 hexadecimal digits, different in every process. One thread.
class RequestIds {
 public:
  RequestIds();
  std::string Next();

 private:
  uint64_t state_;
};

}  // namespace msserving
