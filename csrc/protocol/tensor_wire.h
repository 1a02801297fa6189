// One entry of an Instance's map, i.e. a name and a Tensor message, between wire bytes and a TensorView. The part that
// the codecs of both directions share. Any thread; nothing here allocates but the texts of errors.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "tensor/tensor_view.h"

namespace msserving {

// A Tensor message as it stands, before anything is asked of it.
struct RawTensor {
  int64_t dims[kMaxRank];  // the first min(rank, kMaxRank)
  size_t rank = 0;         // may exceed kMaxRank
  uint32_t dtype = 0;      // may be no DataType
  std::span<const uint8_t> data;
  size_t texts = 0;                  // elements of bytes_val
  std::span<const uint8_t> text;     // the first of them
  bool names_shared_memory = false;  // field 5: never accepted
};

// False: malformed. A missing key is "", a missing value an empty Tensor; several values are merged.
bool ParseItem(std::span<const uint8_t> entry, std::string_view* name, RawTensor* tensor);

// The view of a tensor that keeps the rules of encoding; false if it does not, then see ExplainTensor(): data type
// known, rank up to kMaxRank, no negative dimension, a zero only as the last, as many bytes as the shape takes;
// text: exactly one element, dims [] or [1], a string in UTF-8.
bool ViewTensor(const RawTensor& raw, TensorView* view);

// Which of these rules the tensor breaks: what it has and what is allowed. Empty if none.
std::string ExplainTensor(const RawTensor& raw);

// Sizes of an entry on the wire: of its Tensor message, and of the entry's content.
struct ItemSizes {
  size_t tensor;
  size_t entry;
};
ItemSizes SizeOfItem(std::string_view name, const TensorView& view);

// Writes the entry's content up to its tensor's bytes, which the caller writes behind it: they come last.
uint8_t* WriteItemHead(uint8_t* to, std::string_view name, const TensorView& view, const ItemSizes& size);

}  // namespace msserving
