// The options that the acl session library's open() takes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "mindspore_serving/session.h"

namespace msserving::acl {

struct Options {
  std::string file;     // option `file`: the OM model; must be given
  int32_t device = 0;   // option `device_id`
  std::string library;  // option `library`: where libascendcl.so is; empty: found as acl_library.h says
};

// Throws std::invalid_argument naming the option.
Options ParseOptions(const MsServingOption* options, size_t count);

}  // namespace msserving::acl
