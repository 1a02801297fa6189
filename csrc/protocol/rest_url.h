// The addresses of methods over REST:
//   /model/<servable>[/version/<number>]:<method>   or   /version/<number>/model/<servable>:<method>
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/error.h"

namespace msserving {

struct RestUrl {
  std::string servable;
  std::string method;
  uint64_t version = 0;  // 0: the newest
};

// `target` as it stands in the request line: a path, or a whole http(s) URL; a query or fragment is ignored.
// Keywords are whole path segments, so servables may be called "model" or "version"; names are percent-decoded.
// A version may have text behind its number ("1abc" is 1), as clients of old rely on.
// Errors: kServableUnavailable for a path that is no such address at all, kInvalidInput for a defect inside one.
// Reuses the memory of *url. Any thread.
Status ParseRestUrl(std::string_view target, RestUrl* url);

}  // namespace msserving
