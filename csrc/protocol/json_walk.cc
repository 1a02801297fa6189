#include "protocol/json_walk.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "net/buffer.h"
#include "protocol/json_number.h"

namespace msserving {

namespace ondemand = simdjson::ondemand;

bool JsonWalker::Begin(std::span<const uint8_t> text, ondemand::document* document) {
  static_assert(Buffer::kPadding >= simdjson::SIMDJSON_PADDING);
  why_ = simdjson::SUCCESS;
  if (parser_.capacity() < text.size()) {
    const size_t capacity = std::max<size_t>(std::bit_ceil(text.size()), 4096);
    if (Fails(parser_.allocate(std::min(capacity, parser_.max_capacity())))) {
      return false;
    }
  }
  return !Fails(parser_.iterate(text.data(), text.size(), text.size() + Buffer::kPadding).get(*document));
}

bool JsonWalker::Validate(std::span<const uint8_t> text, int max_depth) {
  ondemand::document document;
  bool scalar = false;
  if (!Begin(text, &document) || Fails(document.is_scalar().get(scalar))) {
    return false;
  }
  if (scalar) {
    return ValidateScalar(&document);
  }
  ondemand::value root;
  if (Fails(document.get_value().get(root)) || !Skip(root, max_depth)) {
    return false;
  }
  return document.at_end() || !Fails(simdjson::TRAILING_CONTENT);
}

bool JsonWalker::ValidateScalar(ondemand::document* document) {
  ondemand::json_type type{};
  if (Fails(document->type().get(type))) {
    return false;
  }
  bool flag = false;
  std::string_view text;
  ondemand::number number;
  switch (type) {
    case ondemand::json_type::string: return !Fails(document->get_string().get(text));
    case ondemand::json_type::boolean: return !Fails(document->get_bool().get(flag));
    case ondemand::json_type::null: return !Fails(document->is_null().get(flag));
    default: return !Fails(document->get_number().get(number));
  }
}

bool JsonWalker::Skip(ondemand::value value, int depth_left) {
  if (depth_left <= 0) {
    return false;
  }
  const std::string_view token = value.raw_json_token();
  switch (token.front()) {
    case '[': {
      ondemand::array array;
      if (Fails(value.get_array().get(array))) {
        return false;
      }
      for (auto element : array) {
        ondemand::value item;
        if (Fails(std::move(element).get(item)) || !Skip(item, depth_left - 1)) {
          return false;
        }
      }
      return true;
    }
    case '{': {
      ondemand::object object;
      if (Fails(value.get_object().get(object))) {
        return false;
      }
      for (auto entry : object) {
        ondemand::field field;
        std::string_view key;
        if (Fails(std::move(entry).get(field)) || !Key(&field, &key) || !Skip(field.value(), depth_left - 1)) {
          return false;
        }
      }
      return true;
    }
    case '"': {
      std::string_view text;
      return Text(value, &text);
    }
    case 't':
    case 'f': {
      bool flag;
      return !Fails(value.get_bool().get(flag));
    }
    case 'n': {
      bool is_null = false;
      return !Fails(value.is_null().get(is_null)) && (is_null || !Fails(simdjson::N_ATOM_ERROR));
    }
    default: {
      ScannedNumber number;
      const bool good = ScanNumber(TextOf(value), &number) && TokenEndsAt(token, number.end);
      return good || !Fails(simdjson::NUMBER_ERROR);
    }
  }
}

bool JsonWalker::Text(ondemand::value value, std::string_view* text) {
  std::string_view token = value.raw_json_token();
  while (!token.empty() && IsJsonSpace(token.back())) {
    token.remove_suffix(1);
  }
  // The first pass over the document has found the quotes and refused control characters and wrong UTF-8.
  if (token.size() >= 2 && token.back() == '"' && std::memchr(token.data(), '\\', token.size()) == nullptr) {
    *text = token.substr(1, token.size() - 2);
    return true;
  }
  return !Fails(value.get_string().get(*text));
}

bool JsonWalker::Key(ondemand::field* field, std::string_view* key) {
  *key = field->escaped_key();
  return key->find('\\') == std::string_view::npos || !Fails(field->unescaped_key().get(*key));
}

}  // namespace msserving
