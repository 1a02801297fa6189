// Base64 as RFC 4648 section 4 has it: the standard alphabet, padded with '='. Pure functions; any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace msserving {

constexpr size_t Base64EncodedSize(size_t size) { return (size + 2) / 3 * 4; }
// An upper bound of what `length` characters decode to.
constexpr size_t Base64DecodedBound(size_t length) { return length / 4 * 3; }

// Writes Base64EncodedSize(size) characters; returns their end.
char* EncodeBase64(const uint8_t* bytes, size_t size, char* out);

// Writes at most Base64DecodedBound(text.size()) bytes, `*size` of them. False if the length is not a multiple of
// four, a character is outside the alphabet (line breaks and spaces are, too) or the padding is misplaced.
bool DecodeBase64(std::string_view text, uint8_t* out, size_t* size);

}  // namespace msserving
