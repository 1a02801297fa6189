// The fast path of JSON requests: a (nested) array of numbers or of true and false, read from its text into tensor
// memory in one pass. Pure functions; any thread.
#pragma once

#include <cstdint>

#include "tensor/tensor_view.h"

namespace msserving {

enum class ArrayDefect : uint8_t {
  kNone,
  kSyntax,     // no JSON
  kEmpty,      // [] somewhere
  kMixed,      // an element of another type than the first one
  kRagged,     // an array of another length than the first one of its depth
  kTooDeep,    // more than kMaxRank dimensions
  kOutOfRange  // a number that its type cannot hold
};

// What an array's first element is, found by looking through the opening brackets.
struct ArrayStart {
  ArrayDefect defect = ArrayDefect::kNone;  // kNone, kEmpty or kTooDeep
  int rank = 0;
  const uint8_t* leaf = nullptr;       // the first character that is neither space nor opening bracket
  DataType type = DataType::kUnknown;  // kInt32, kFloat32, kBool, or kUnknown for everything else
};

// `text` points to the first bracket, inside a document whose last character (a closing bracket) is still to come.
ArrayStart PeekArray(const uint8_t* text);

struct ArrayResult {
  ArrayDefect defect = ArrayDefect::kNone;
  const uint8_t* text_end = nullptr;  // behind the closing bracket
  uint8_t* out_end = nullptr;
  int64_t dims[kMaxRank];
  // On a defect: the place, its position in the array, and for kRagged the length it has.
  const uint8_t* at = nullptr;
  int64_t position[kMaxRank];
  int depth = 0;  // entries of `position`
  int64_t length = 0;
};

// Reads the array that `start` was peeked from. `out` is aligned for the type and has room for
// ItemSize(type) * (length of the text) / 2 bytes: no element takes less than a character and a comma.
void ReadArray(const uint8_t* text, const ArrayStart& start, uint8_t* out, ArrayResult* result);

}  // namespace msserving
