// A JSON text being walked once from front to back, on simdjson's on-demand parser. Private to the JSON request
// parser's files: includes simdjson.h.
#pragma once

#include <simdjson.h>

#include <span>
#include <string>
#include <string_view>

namespace msserving {

// All bool functions: true on success. If false, why() says which defect the text has, or the caller has refused it
// for a reason of its own.
class JsonWalker {
 public:
  // Rewinds to the text's beginning; everything handed out before ends. 64 readable bytes must stand behind it.
  bool Begin(std::span<const uint8_t> text, simdjson::ondemand::document* document);

  // The whole text as JSON. False with why() == SUCCESS: it is deeper than max_depth.
  bool Validate(std::span<const uint8_t> text, int max_depth);
  // A value that nobody needs: it must be JSON all the same.
  bool Skip(simdjson::ondemand::value value, int depth_left);

  // A text's content: in the document itself if it has no escapes, else in the parser's memory.
  bool Text(simdjson::ondemand::value value, std::string_view* text);
  bool Key(simdjson::ondemand::field* field, std::string_view* key);

  // Remembers a simdjson error; true if it is one.
  bool Fails(simdjson::error_code code) {
    if (code != simdjson::SUCCESS) [[unlikely]] {
      why_ = code;
      return true;
    }
    return false;
  }
  simdjson::error_code why() const { return why_; }

  size_t capacity() const { return parser_.capacity(); }
  void Free() { parser_ = simdjson::ondemand::parser(); }

 private:
  bool ValidateScalar(simdjson::ondemand::document* document);

  simdjson::ondemand::parser parser_;
  simdjson::error_code why_ = simdjson::SUCCESS;
};

// The token's first character, and its text as bytes.
inline char FirstOf(simdjson::ondemand::value value) { return value.raw_json_token().front(); }
inline const uint8_t* TextOf(simdjson::ondemand::value value) {
  return reinterpret_cast<const uint8_t*>(value.raw_json_token().data());
}

constexpr bool IsJsonSpace(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }

// True if a scalar that was read from the token's beginning up to `end` is all of it.
inline bool TokenEndsAt(std::string_view token, const uint8_t* end) {
  const auto length = static_cast<size_t>(reinterpret_cast<const char*>(end) - token.data());
  return length == token.size() || (length < token.size() && IsJsonSpace(token[length]));
}

}  // namespace msserving
