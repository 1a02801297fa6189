// The short way through a JSON request that is as almost all are: one key "instances", in each instance every input
// once and nothing else, and as values numbers, true, false and arrays of them. It reads the text from front to back
// once, without an index of it. Private to the JSON request parser's files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "protocol/json_value.h"
#include "servable/dispatcher.h"
#include "servable/signature.h"

namespace msserving {

// Which input this is; inputs.size() if none. Clients send inputs in the same order again and again, so the one after
// the last (`expected`) is tried first.
size_t FindInput(const MethodSignature& signature, std::string_view key, size_t expected);

class JsonDirectReader {
 public:
  // `values` has begun with this body, see JsonRequestParser::Parse() for the other arguments.
  JsonDirectReader(std::span<const uint8_t> body, const MethodSignature& signature, size_t max_tensors,
                   JsonValueReader* values, RequestInstances* instances)
      : p_(body.data()),
        end_(body.data() + body.size()),
        signature_(signature),
        max_tensors_(max_tensors),
        values_(*values),
        instances_(*instances) {}

  // False says nothing about the text but that it takes the long way; *instances then has anything.
  bool Read();

 private:
  bool ReadInstance();
  bool ReadKey(std::string_view* key);
  bool Take(uint8_t c);

  // Until the text's last bracket is taken there is always one more character that is no part of a number, a space or
  // a quoted text: what reads those stops there.
  const uint8_t* p_;
  const uint8_t* end_;  // behind the last bracket
  const MethodSignature& signature_;
  const size_t max_tensors_;
  JsonValueReader& values_;
  RequestInstances& instances_;
};

}  // namespace msserving
