// The body of a REST request: JSON text to tensors.
//
// {"instances": [{"x": 1.5, "image": {"b64": "...", "type": "uint8", "shape": [28, 28]}}, ...]}, or one object instead
// of the list. Numbers become INT32 or FLOAT32 (the first element decides), true and false BOOL, text STRING; arrays
// must be rectangular. Everything else is sent as base64 with its type.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "base/error.h"
#include "servable/dispatcher.h"
#include "servable/signature.h"

namespace msserving {

// Reuses its memory between requests, which is a small multiple of the body's size (measured in address space; only
// what is used is touched). Not thread-safe.
class JsonRequestParser {
 public:
  // Tensors (instances x inputs) that one request may have.
  static constexpr size_t kMaxTensors = size_t{1} << 20;
  // How deep values that the method does not ask for may be nested.
  static constexpr int kMaxDepth = 128;

  JsonRequestParser();
  ~JsonRequestParser();
  JsonRequestParser(const JsonRequestParser&) = delete;

  // Fills *instances with instances x signature.inputs tensors, which stay valid until the next call of any method
  // (text views need the body to live as long, too). `body` must have 64 readable bytes behind it.
  // Errors are kInvalidInput, name the place ("instances[3].x1[0][2]"), the value and what is allowed. Text that is no
  // JSON at all is reported as that, wherever the defect is; everything else begins "Parser request failed, ", except
  // a missing input ("Cannot find input x in instance input").
  // A key given twice is an error; keys that are neither "instances" nor an input are ignored, but must be JSON.
  Status Parse(std::span<const uint8_t> body, const MethodSignature& signature, RequestInstances* instances);

  // Is it JSON at all? For requests that fail before their content is looked at.
  Status Validate(std::span<const uint8_t> body);

  // Gives memory above `bytes` back; views of the last Parse() end.
  void Trim(size_t bytes);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace msserving
