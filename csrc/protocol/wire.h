// The protobuf wire format, as far as the serving messages need it: a reader over a span and the arithmetic and
// stores of a writer. Knows no message. Nothing here allocates; every read is bounded by the reader's span.
// Accepts and rejects what protobuf's own parsers accept and reject.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

namespace msserving::wire {

enum class Type : uint32_t {
  kVarint = 0,
  kFixed64 = 1,
  kBytes = 2,  // length-delimited: strings, bytes, messages, packed numbers
  kStartGroup = 3,
  kEndGroup = 4,
  kFixed32 = 5,
};

// Groups nested deeper than this are malformed (protobuf's own default).
inline constexpr int kMaxGroupDepth = 100;
// A length-delimited field is at most this long, as in every protobuf implementation.
inline constexpr uint64_t kMaxLength = INT32_MAX;

constexpr uint32_t Tag(uint32_t field, Type type) { return field << 3 | static_cast<uint32_t>(type); }
constexpr uint32_t FieldOf(uint32_t tag) { return tag >> 3; }
constexpr Type TypeOf(uint32_t tag) { return static_cast<Type>(tag & 7); }

// Walks over the fields of one message. After a false return the message is malformed and the reader is of no
// further use. Spans that it hands out point into the span it was made with.
class Reader {
 public:
  explicit Reader(std::span<const uint8_t> bytes) : at_(bytes.data()), end_(bytes.data() + bytes.size()) {}

  bool done() const { return at_ == end_; }

  // False for a field number of 0 or more than 32 bits.
  bool ReadTag(uint32_t* tag) { return ReadAnyTag(tag) && FieldOf(*tag) != 0; }

  // Up to 10 bytes; bits beyond 64 are dropped.
  bool ReadVarint(uint64_t* value) {
    if (at_ != end_ && *at_ < 0x80) {
      *value = *at_++;
      return true;
    }
    return ReadLongVarint(10, value);
  }

  bool ReadBytes(std::span<const uint8_t>* bytes) {
    uint64_t size;
    if (at_ != end_ && *at_ < 0x80) {
      size = *at_++;
    } else if (!ReadLongVarint(5, &size) || size > kMaxLength) {
      return false;
    }
    if (size > static_cast<size_t>(end_ - at_)) {
      return false;
    }
    *bytes = {at_, static_cast<size_t>(size)};
    at_ += size;
    return true;
  }

  // Skips the value of a field whose tag was just read; whole groups as well.
  bool Skip(uint32_t tag);

 private:
  bool ReadAnyTag(uint32_t* tag) {
    if (at_ != end_ && *at_ < 0x80) {
      *tag = *at_++;
    } else {
      uint64_t value;
      if (!ReadLongVarint(5, &value) || value > UINT32_MAX) {
        return false;
      }
      *tag = static_cast<uint32_t>(value);
    }
    return true;
  }

  bool ReadLongVarint(int max_bytes, uint64_t* value);
  bool SkipGroup(uint32_t field);
  bool SkipScalar(Type type);

  const uint8_t* at_;
  const uint8_t* end_;
};

inline std::string_view AsText(std::span<const uint8_t> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

bool IsUtf8(std::string_view text);

// Bytes that WriteVarint(value) takes: 1 to 10.
constexpr size_t VarintSize(uint64_t value) { return (static_cast<size_t>(std::bit_width(value | 1)) + 6) / 7; }

// Bytes of a field with a one-byte tag that holds `size` bytes, and of the tag and length alone.
constexpr size_t PrefixSize(size_t size) { return 1 + VarintSize(size); }
constexpr size_t FieldSize(size_t size) { return PrefixSize(size) + size; }

// The stores return the position behind what they wrote; the caller has made room.
inline uint8_t* WriteVarint(uint8_t* to, uint64_t value) {
  while (value >= 0x80) {
    *to++ = static_cast<uint8_t>(value | 0x80);
    value >>= 7;
  }
  *to++ = static_cast<uint8_t>(value);
  return to;
}

// Tag (field number below 16) and length of a length-delimited field.
inline uint8_t* WritePrefix(uint8_t* to, uint32_t field, size_t size) {
  *to++ = static_cast<uint8_t>(Tag(field, Type::kBytes));
  return WriteVarint(to, size);
}

inline uint8_t* WriteRaw(uint8_t* to, const void* bytes, size_t size) {
  if (size > 0) {
    std::memcpy(to, bytes, size);
  }
  return to + size;
}

inline uint8_t* WriteBytes(uint8_t* to, uint32_t field, const void* bytes, size_t size) {
  return WriteRaw(WritePrefix(to, field, size), bytes, size);
}

inline uint8_t* WriteNumber(uint8_t* to, uint32_t field, uint64_t value) {
  *to++ = static_cast<uint8_t>(Tag(field, Type::kVarint));
  return WriteVarint(to, value);
}

}  // namespace msserving::wire
