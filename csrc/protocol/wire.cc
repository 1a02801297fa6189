#include "protocol/wire.h"

#include <simdjson.h>

namespace msserving::wire {

bool Reader::ReadLongVarint(int max_bytes, uint64_t* value) {
  uint64_t result = 0;
  for (int i = 0; i < max_bytes && at_ != end_; ++i) {
    const uint8_t byte = *at_++;
    result |= static_cast<uint64_t>(byte & 0x7F) << (7 * i);
    if (byte < 0x80) {
      *value = result;
      return true;
    }
  }
  return false;
}

bool Reader::SkipScalar(Type type) {
  switch (type) {
    case Type::kVarint: {
      uint64_t ignored;
      return ReadVarint(&ignored);
    }
    case Type::kBytes: {
      std::span<const uint8_t> ignored;
      return ReadBytes(&ignored);
    }
    case Type::kFixed64:
    case Type::kFixed32: {
      const ptrdiff_t size = type == Type::kFixed64 ? 8 : 4;
      if (end_ - at_ < size) {
        return false;
      }
      at_ += size;
      return true;
    }
    default: return false;  // an end without its start, or a type that does not exist
  }
}

bool Reader::Skip(uint32_t tag) {
  return TypeOf(tag) == Type::kStartGroup ? SkipGroup(FieldOf(tag)) : SkipScalar(TypeOf(tag));
}

bool Reader::SkipGroup(uint32_t field) {
  uint32_t open[kMaxGroupDepth];
  int depth = 0;
  open[depth++] = field;
  while (depth > 0) {
    uint32_t tag;
    if (!ReadAnyTag(&tag)) {  // protobuf does not look at the numbers of fields that it skips
      return false;
    }
    if (TypeOf(tag) == Type::kStartGroup) {
      if (depth == kMaxGroupDepth) {
        return false;
      }
      open[depth++] = FieldOf(tag);
    } else if (TypeOf(tag) == Type::kEndGroup) {
      if (open[--depth] != FieldOf(tag)) {
        return false;
      }
    } else if (!SkipScalar(TypeOf(tag))) {
      return false;
    }
  }
  return true;
}

bool IsUtf8(std::string_view text) {
  const char* at = text.data();
  size_t left = text.size();
  for (; left >= sizeof(uint64_t); at += sizeof(uint64_t), left -= sizeof(uint64_t)) {
    uint64_t word;
    std::memcpy(&word, at, sizeof(word));
    if ((word & 0x8080808080808080) != 0) {
      return simdjson::validate_utf8(at, left);
    }
  }
  for (size_t i = 0; i < left; ++i) {
    if (static_cast<unsigned char>(at[i]) >= 0x80) {
      return simdjson::validate_utf8(at, left);
    }
  }
  return true;
}

}  // namespace msserving::wire
